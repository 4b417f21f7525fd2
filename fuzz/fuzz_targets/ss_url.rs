//! Any text as an `ss://` link: what is read can be written, and is then read as the same server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_proto::url::ServerUrl;

fuzz_target!(|text: &str| {
    if let Ok(url) = text.parse::<ServerUrl>() {
        let written = url.to_text();
        let again: ServerUrl = written.parse().expect("what we write is a link");
        assert!(again == url, "a link changed on its way through text");
    }
    // Most random text stops at the scheme.
    if let Ok(url) = format!("ss://{text}").parse::<ServerUrl>() {
        let again: ServerUrl = url.to_text().parse().expect("what we write is a link");
        assert!(again == url, "a link changed on its way through text");
    }
});
