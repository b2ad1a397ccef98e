//! The grammar of the arguments of `keepalive` and `keepalive_hints`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::params::check(input));
