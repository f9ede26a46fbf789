#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wxtoken::fuzz::access_lists::check(data));
