// What a WebAssembly module needs besides the engine: the far side of an exception, and of a thread.
#include <cstdlib>
#include <exception>
#include <new>
#include <thread>
#include <typeinfo>

#include "json.h"
#include "squeezebert.h"

namespace sqb_wasm {

Slot slots[kMostWorkers];

}  // namespace sqb_wasm

extern "C" {

// Given by JavaScript: throws an error there, which leaves every WebAssembly frame.
[[noreturn]] __attribute__((import_module("env"), import_name("fail"))) void sqb_wasm_fail(int code, const char* message);

// Compiled with -fignore-exceptions, a throw ends here and catches are not there: codes and lines go to JavaScript rather
// than through sqb_load and sqb_run, and nothing is destroyed on the way. After an error, JavaScript puts the stack
// pointer back; an engine whose loading failed is dropped with its instance. Everything that the engine throws derives from
// std::exception first, so that the object begins with one.
void* __cxa_allocate_exception(size_t size) { return std::malloc(size); }
[[noreturn]] void __cxa_throw(void* exception, std::type_info* type, void* (*)(void*)) {
  const int code = *type == typeid(sqb::InputError) ? SQB_INPUT : *type == typeid(std::bad_alloc) ? SQB_MEMORY : SQB_FAULT;
  sqb_wasm_fail(code, static_cast<std::exception*>(exception)->what());
}

// The life of a worker: run what std::thread puts into the slot, wait for the next. Never returns.
__attribute__((export_name("sqb_wasm_serve"))) void sqb_wasm_serve(int slot) {
  sqb_wasm::Slot& mine = sqb_wasm::slots[slot];
  for (;;) {
    mine.wait_while(sqb_wasm::Slot::idle);
    mine.entry(mine.argument);
    mine.set(sqb_wasm::Slot::done);
    mine.wait_while(sqb_wasm::Slot::done);
  }
}

}  // extern "C"
