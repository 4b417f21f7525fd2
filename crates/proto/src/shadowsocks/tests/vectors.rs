//! The published-by-nobody vectors of both generations over TCP: computed from the specifications with fixed inputs by two
//! crypto libraries and opened by a third. For tests only: their salts are fixed.

use super::key::Key;
use super::{Generation, Method, Salt, UnixTime};
use crate::address::Address;

/// A stream of SIP004: a record with the target alone, then one with [`HELLO`]. Password `barfoo!`, salt 00 01 02 …
pub(super) struct Aead {
    pub method: Method,
    pub subkey: &'static str,
    pub wire: &'static str,
}

/// A session of SIP022: secret 00 01 02 …, request salt 80 81 …, response salt c0 c1 …
///
/// The request carries padding 00 11 22 as well as `hello`, then `world`; the response `hi`, then `again`.
pub(super) struct Aead2022 {
    pub method: Method,
    pub request_subkey: &'static str,
    pub request: &'static str,
    pub response_subkey: &'static str,
    pub response: &'static str,
}

pub(super) const NOW: UnixTime = UnixTime(1_700_000_000);
pub(super) const HELLO: &[u8] = b"hello";

pub(super) fn target() -> Address {
    "example.com:443".parse().unwrap()
}

/// The methods of one generation.
pub(super) fn methods(generation: Generation) -> impl Iterator<Item = Method> {
    Method::ALL.into_iter().filter(move |method| method.generation() == generation)
}

/// The methods that authenticate what they carry.
pub(super) fn sound() -> impl Iterator<Item = Method> {
    Method::ALL.into_iter().filter(|method| !method.is_insecure())
}

/// The key of the vectors.
pub(super) fn key(method: Method) -> Key {
    match method.generation() {
        Generation::Stream | Generation::Aead => Key::from_password(method, "barfoo!").unwrap(),
        Generation::Aead2022 => Key::from_bytes(method, &count(0)[..method.key_len()]).unwrap(),
    }
}

/// The salt that counts up from `first`.
pub(super) fn salt(method: Method, first: u8) -> Salt {
    Salt::new(method, count(first))
}

fn count(first: u8) -> [u8; 32] {
    std::array::from_fn(|at| first + u8::try_from(at).unwrap())
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub(super) const AEAD: [Aead; 3] = [
    Aead {
        method: Method::Aes128Gcm,
        subkey: "9cd21fb890a57fbe98653cbadd4d047c",
        wire: "000102030405060708090a0b0c0d0e0f6f5bcbc370601d1bd36769c2841e9ab9dbf983cb3671df0e3535facc60\
            e35e9f534b6ed294f585dca565f8e43884b6eae827e92ec69375a1334ffb5881d3b0afa701893a076e19b7d21c\
            08053bc0ce661fcb9ad66e4017b7",
    },
    Aead {
        method: Method::Aes256Gcm,
        subkey: "6e62f41174d7879ffea269ebf7805b730f62002e2b461f4dcb2a21dfb6f6423e",
        wire: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1ffe38cf3dc0f717f26215fc1e50\
            4fafb72f1bdd9bc51b0d8a83b231613d79afc71c1baf65f43d35ffab48bafb5484f41700e4cb83912b0f3cb770\
            4ad7f9002ca02cef05fcce5426fdabb6f865410f0f516854eb8b81c5c883",
    },
    Aead {
        method: Method::Chacha20IetfPoly1305,
        subkey: "6e62f41174d7879ffea269ebf7805b730f62002e2b461f4dcb2a21dfb6f6423e",
        wire: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fa020997853543ac3cc5e21b6f9\
            dcdd89f5424db967f534f21b56fa73a5ec120506c6d3810239d3f513d2eeefbf309ca720ed4af8f46108674e93\
            e32cd112ae4d7db5587bacef2f523ae4dac8f735283d4bd3c37b15027593",
    },
];

pub(super) const AEAD_2022: [Aead2022; 3] = [
    Aead2022 {
        method: Method::Blake3Aes128Gcm,
        request_subkey: "722b3033c5d021365a8521bfb41157a3",
        request: "808182838485868788898a8b8c8d8e8fa342d2422f3788104ccf968f8ba1c9cf606fb00c12abcfd211f99929d3\
            b0438a29361410a8bd8dcaf41e8738b5aec363efca807cc87aa39df43b480b2c409ebeab21a7de37c8ce9d7b47\
            7a05eb980c9aea635220fa83a20ca522160459c692136a4c10da905cc0c3590a46",
        response_subkey: "129f11bdc02d3617ffdd53d6d955317d",
        response: "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfc1b3ab154843fd6fa2e950c251fe1ad3f55010d074280fe17a01edad20\
            b20e719a609e7af060d61b711b9cd800f9dbc8d1685d6313e1ab1b4ccfbdc673fc8e8d40e8ad961af793eb14f0\
            9c0c36fdba3e68ffe780752ed6cd252a55f63da55897c42ac89f",
    },
    Aead2022 {
        method: Method::Blake3Aes256Gcm,
        request_subkey: "11289b9d205255930f83932405c2b0a38ec32be703fe33f290ff25ffeff402f9",
        request: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f4ee13038514af6dc2b59000034\
            fd210e47a66eedf26f6398cfb66f64413f06e7c767427ae7b001d92896ef3710d9ab2679740aeaf0a807d4e618\
            6c3d6793c55edd246b0f5ca81007e3c9fcc284f89e62ff3d1dde75c856d4929b61a4014cb425ee0a7d367c80ed\
            d1d24662",
        response_subkey: "3d8f536a5b407717b0a8082e427e47bb3a582f12aa2ed585a3bd4a15bdb6544f",
        response: "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf56eec0f3fb5493cea160308ca8\
            f52aa96cc5d2f7c2bfcc451ace93e57f5fb99368a289aec6f8eebf4bde4525cf2d040cfd112a0a139d9d4e8333\
            92c749f528a857a39ededdf5f7c1dcd31941fd60a9b8fbd4aa4df31f95aed56cbf26d19a3eb64051bcf233c397\
            ff507a3689ac5c0c40a81f8bf2",
    },
    Aead2022 {
        method: Method::Blake3Chacha20Poly1305,
        request_subkey: "11289b9d205255930f83932405c2b0a38ec32be703fe33f290ff25ffeff402f9",
        request: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f3b39f1281acc419b3de8d4e0b1\
            47384ff2ce9567b95202da6c2544141cff65442db1d9c8413e651a8d2ce80fa84a8c47d1fff083432a38f230fa\
            15db065c1cfdfd24053e9dbe96e2471269d3840819f5adf0af3ad627d1fb05f56f5d84a4978fb5255a410f86e7\
            fb7efff9",
        response_subkey: "3d8f536a5b407717b0a8082e427e47bb3a582f12aa2ed585a3bd4a15bdb6544f",
        response: "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf8b8079a05d13664161d72385de\
            e2a5570522ceaba126fe3889714ba015bbbb75d743a75fc07a6beb7cc30e9582b7be3083fd7fb337bddb03b218\
            be01371f1720a5c24ae47eaf62c0f8346fd84190ae78e9472afa2c6d7263ac676ff49b434539757bcaccb7adaa\
            4f8ffe715f8b477af8ce5aaa99",
    },
];
