//! Any text as an `ss://` link: what is read can be written, in both forms where it fits them, and is then read as the same server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_proto::url::ServerUrl;

fuzz_target!(|text: &str| {
    // Most random text stops at the scheme.
    for url in [text.parse::<ServerUrl>(), format!("ss://{text}").parse()].into_iter().flatten() {
        for written in [Some(url.to_text()), url.to_legacy_text()].into_iter().flatten() {
            let again: ServerUrl = written.parse().expect("what we write is a link");
            // A prefix is seen and not written.
            let expected = ServerUrl { has_prefix: false, ..url.clone() };
            assert!(again == expected, "a link changed on its way through text");
        }
    }
});
