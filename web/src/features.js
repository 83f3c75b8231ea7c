// What this browser's WebAssembly can do, asked with the smallest modules that need it.

const HEADER = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
// () -> v128, one function, whose body follows.
const VECTOR_FUNCTION = [1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0];
const ZERO = [0x41, 0, 0xfd, 15]; // i32.const 0, i8x16.splat

function valid(...body) {
  const code = [0, ...body, 0x0b];
  return WebAssembly.validate(
    new Uint8Array([...HEADER, ...VECTOR_FUNCTION, 10, code.length + 2, 1, code.length, ...code]),
  );
}

/** @returns {{simd: boolean, relaxed: boolean, shared: boolean}} */
export function features() {
  if (typeof WebAssembly !== 'object') return { simd: false, relaxed: false, shared: false };
  let shared = true;
  try {
    new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  } catch {
    shared = false;
  }
  return {
    simd: valid(...ZERO),
    // i32x4.relaxed_dot_i8x16_i7x16_add_s
    relaxed: valid(...ZERO, ...ZERO, ...ZERO, 0xfd, 0x93, 0x02),
    shared,
  };
}
