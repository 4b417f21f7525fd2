//! Packets of both generations: computed from the specifications with fixed inputs by two crypto libraries, like the streams
//! of the vectors beside them. For tests only: their salts are fixed.

use super::Method;

/// A packet of SIP004 with the target and `hello`. Password `barfoo!`, salt 00 01 02 …
pub(super) const SALTED: [(Method, &str); 3] = [
    (
        Method::Aes128Gcm,
        "000102030405060708090a0b0c0d0e0f6c5fe3c21c41fd0f5cd11099e212d3c0c625ad374143b04e83b6ff2f\
            935eb30bb67a0c7c",
    ),
    (
        Method::Aes256Gcm,
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1ffd3cc7c65937c4d14a75934a\
            82d99204cb16926103e07f379a185c30264a1bd17c7aa3ae",
    ),
    (
        Method::Chacha20IetfPoly1305,
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1fa324c1853be2d794757da31a\
            66b0c7f6337366b47443a3fd2d8b06ad2581a23a788ea496",
    ),
];

/// Packets of SIP022 with AES. Secret 00 01 02 …, identity keys a0 a1 … and 40 41 …, the client's session 01 02 …, the
/// server's 11 12 …
pub(super) struct Separate {
    pub method: Method,
    /// The target and `hello`.
    pub request: &'static str,
    /// The same as packet 0x0102, with padding 00 11 22.
    pub padded: &'static str,
    /// From 93.184.216.34:443, `hi`.
    pub response: &'static str,
    /// The request with one identity header, and with two.
    pub named: [&'static str; 2],
}

pub(super) const SEPARATE: [Separate; 2] = [
    Separate {
        method: Method::Blake3Aes128Gcm,
        request: "18ba69bb4661fee5a7cc9ec1a731e2780f887748f59fbaddc74035a8fb9de8217455977aa47c252c90bc8ff7\
            b83134ac3cbcad84da2d419b1fc198a37a0812",
        padded: "3fd082f65d0ebdd10f792ac2c1bfb8eb2be5db2148a3f451df767ae26be358ba8d208497beeedbd9cba41d46\
            e39dab702a2319e0c8123e6897075c658f622ae4b6ad",
        response: "f5b62a6fb8eef776abf657056c2aa5a95aba22e25f5ebfbc60c0d767f7702020126d3734466f2fe84fa1b5c1\
            a7929dc91874677ad5bbd41703faa26b",
        named: [
            "4b606595983a2c933d2109e4c23245df645356b78a7e69aa30ef759a16e4d9e40f887748f59fbaddc74035a8\
            fb9de8217455977aa47c252c90bc8ff7b83134ac3cbcad84da2d419b1fc198a37a0812",
            "4b606595983a2c933d2109e4c23245df3e4909410daded34d1a5cf92446fa2d987232e63ea7a4cff5fcedeb6\
            cdfd27110f887748f59fbaddc74035a8fb9de8217455977aa47c252c90bc8ff7b83134ac3cbcad84da2d419b\
            1fc198a37a0812",
        ],
    },
    Separate {
        method: Method::Blake3Aes256Gcm,
        request: "65627bd127f455618ff9d0f081df2db47e41c363d48a26c057fcafd4eb348dd067cf7fcb35c0e4744094ab28\
            01826fbcdee75968f00b70b934e062be187545",
        padded: "9d623d189b2eb1408aa3595245b805e21b10fd293716864e90f6e41bb0b55263571ce18725812273c7d5c834\
            af7de2571a1d99af8befc383ca311e96482477d94297",
        response: "7d3e1103b2527fa6684a5dc05e48a16c8c9ab510b51814d34e2704a6b8d679473b89995d5f249738ad71e715\
            8373f6e664a0d1e6f6176aedb64eaffe",
        named: [
            "03ea5074f6ba70912a3190efc944d6aa822a155c821eb403c3d84aa3255957927e41c363d48a26c057fcafd4\
            eb348dd067cf7fcb35c0e4744094ab2801826fbcdee75968f00b70b934e062be187545",
            "03ea5074f6ba70912a3190efc944d6aa0dbe6546e0d6c2831acf05f864d111d8e5ada894a2e492020ba7e8da\
            ac921a027e41c363d48a26c057fcafd4eb348dd067cf7fcb35c0e4744094ab2801826fbcdee75968f00b70b9\
            34e062be187545",
        ],
    },
];

/// Packets of SIP022 with `ChaCha20`, nonces 00 01 02 … and 18 19 1a …: the request, and the response.
pub(super) const EXTENDED: [&str; 2] = [
    "000102030405060708090a0b0c0d0e0f10111213141516179fc00c7b95d48aa6334426cecb52a8e84b4728a5\
            fdb34e1a7f1a3fb536c88d383376da816f046609d42ec63ca34d3c23ac13562a99b994b29d2cc1465abb0d",
    "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f411868c8786ed05ed1fc848d00a408f4c7f6c037\
            a0ae57832ce2bb9c9e96adf38ab61f3390481a7dc965c5d6bac95a908345aea706f97d9ff0cfc29b",
];
