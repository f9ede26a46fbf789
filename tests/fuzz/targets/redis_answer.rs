#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wxtoken::fuzz::redis_answer::check(data));
