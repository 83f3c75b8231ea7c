#include "kernels.h"

#include "ops/reference.h"

#if SQB_X86
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif SQB_ARM && defined(__linux__)
#include <sys/auxv.h>
#elif SQB_ARM && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sqb {

namespace {

const Kernels kReference = {"reference",          {false},
                            reference::grouped_linear, reference::quantize,
                            reference::attention,      reference::layer_norm,
                            reference::embedding};

#if SQB_X86
// Leaf 7.1, bit 4 of eax: clang 14 has the instructions, but does not know their name.
bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0;
}

constexpr long kTileData = 18;  // XFEATURE_XTILEDATA

// Whether processor and system have AMX's int8 tiles.
bool has_amx() {
#if defined(__linux__)
  constexpr unsigned tile = 1u << 24, int8 = 1u << 25;  // of edx
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & (tile | int8)) != (tile | int8)) return false;
  constexpr long supported = 0x1021;  // ARCH_GET_XCOMP_SUPP
  uint64_t features = 0;
  return ::syscall(SYS_arch_prctl, supported, &features) == 0 && (features >> kTileData & 1) != 0;
#else
  return false;
#endif
}

bool request_tiles() {
#if defined(__linux__)
  constexpr long request = 0x1023;  // ARCH_REQ_XCOMP_PERM
  return ::syscall(SYS_arch_prctl, request, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

#if SQB_X86
extern const Kernels kAmx;
extern const Kernels kAvx512Vnni;
extern const Kernels kAvxVnni;
extern const Kernels kAvx2;
#elif SQB_ARM
extern const Kernels kNeonDot;
extern const Kernels kNeonI8mm;
#elif SQB_WASM
extern const Kernels kWasm;
const Kernels* relaxed_kernels();  // isa/wasm_relaxed.cc; null where relaxed instructions are not exact
#endif

const std::vector<const Kernels*>& available_kernels() {
  static const std::vector<const Kernels*> all = [] {
    std::vector<const Kernels*> found;
#if SQB_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
      if (has_amx()) found.push_back(&kAmx);
      found.push_back(&kAvx512Vnni);
    }
    if (avx2 && has_avxvnni()) found.push_back(&kAvxVnni);
    if (avx2) found.push_back(&kAvx2);
#elif SQB_ARM
#if defined(__linux__)
    constexpr unsigned long dot = 1ul << 20;   // HWCAP_ASIMDDP
    constexpr unsigned long i8mm = 1ul << 13;  // HWCAP2_I8MM
    if (getauxval(AT_HWCAP2) & i8mm) found.push_back(&kNeonI8mm);
    if (getauxval(AT_HWCAP) & dot) found.push_back(&kNeonDot);
#elif defined(__APPLE__)
    const auto has = [](const char* feature) {
      int value = 0;
      size_t size = sizeof(value);
      return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    if (has("hw.optional.arm.FEAT_I8MM")) found.push_back(&kNeonI8mm);
    if (has("hw.optional.arm.FEAT_DotProd")) found.push_back(&kNeonDot);
#endif
#elif SQB_WASM
#if SQB_WASM_RELAXED
    if (const Kernels* relaxed = relaxed_kernels()) found.push_back(relaxed);
#endif
    found.push_back(&kWasm);
#endif
    found.push_back(&kReference);
    return found;
  }();
  return all;
}

bool enable(const Kernels& kernels) {
#if SQB_X86
  if (&kernels == &kAmx) return request_tiles();
#endif
  (void)kernels;
  return true;
}

const Kernels& best_kernels() {
  for (const Kernels* kernels : available_kernels())
    if (enable(*kernels)) return *kernels;
  return kReference;
}

const Kernels* find_kernels(const std::string& name) {
  for (const Kernels* kernels : available_kernels())
    if (name == kernels->name && enable(*kernels)) return kernels;
  return nullptr;
}

}  // namespace sqb
