//! Any bytes as an address block, and any text as an address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_proto::address::Address;
use umbra_proto::limits::ADDRESS_BYTES_MAX;
use umbra_proto::wire::{Reader, Stop};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    if let Ok(address) = Address::decode(&mut reader) {
        let taken = reader.taken();
        for end in 0..taken {
            assert_eq!(Address::decode(&mut Reader::new(&bytes[..end])), Err(Stop::Incomplete));
        }
        check(&address);
    }
    if let Some(address) = str::from_utf8(bytes).ok().and_then(|text| text.parse::<Address>().ok()) {
        check(&address);
    }
});

/// Both forms of an address name the same address.
fn check(address: &Address) {
    let mut block = Vec::new();
    address.encode(&mut block);
    assert_eq!(block.len(), address.encoded_len());
    assert!((5..=ADDRESS_BYTES_MAX).contains(&block.len()));
    let mut reader = Reader::new(&block);
    assert_eq!(Address::decode(&mut reader).as_ref(), Ok(address));
    assert!(reader.rest().is_empty());
    assert_eq!(address.to_string().parse().as_ref(), Ok(address));
}
