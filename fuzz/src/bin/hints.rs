//! The grammar of the `Keep-Alive` response header.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::hints::check(input));
