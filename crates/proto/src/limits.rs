//! Every bound of the protocols, with its unit and its reason.

/// RFC 1928 gives a name one length byte.
pub const DOMAIN_NAME_BYTES_MAX: usize = 255;

/// The longest address block: type, length byte, name, port.
pub const ADDRESS_BYTES_MAX: usize = 1 + 1 + DOMAIN_NAME_BYTES_MAX + 2;

/// The shortest address block: a name of one letter.
pub const ADDRESS_BYTES_MIN: usize = 1 + 1 + 1 + 2;

/// SIP004: the two high bits of a record's length are reserved.
pub const AEAD_PAYLOAD_BYTES_MAX: usize = 0x3fff;

/// A chunk of one-time authentication that we send: its length has 16 bits, but the programs that know it never had larger
/// buffers than this.
pub const OTA_PAYLOAD_BYTES_MAX: usize = 0x3fff;

/// SIP022, 3.1.2: a record's length uses all 16 bits.
pub const AEAD_2022_PAYLOAD_BYTES_MAX: usize = 0xffff;

/// SIP022, 3.1.3: more padding than this in a request gives nothing.
pub const PADDING_BYTES_MAX: u16 = 900;

/// SIP022, 3.1.3: a timestamp further off than this is a replay.
pub const CLOCK_SKEW_SECS_MAX: u64 = 30;

/// SIP022, 3.1.4: salts are remembered at least this long. Twice the permitted skew: a timestamp from the future stays good that long.
pub const SALT_MEMORY_SECS: u64 = 60;

/// Salts of one generation in the store of a SIP004 key, which has no clock to forget by: two generations at most, 8 MiB. A session
/// takes two, its own and that of the answer.
pub const AEAD_SALTS_MAX: usize = 100_000;

/// Salts of one memory period of a SIP022 key. Only holders of the key can add one; past it sessions are refused, since
/// forgetting would let a replay in. Two periods at most, 140 MiB.
pub const AEAD_2022_SALTS_MAX: usize = 1_000_000;

/// SIP022, 3.2.4 leaves the width of a session's window open. Packets of one session that overtake each other by more than this
/// are not seen on real paths, and it keeps an idle session small: 256 bytes.
pub const PACKET_WINDOW_IDS: u64 = 2048;

/// How long a client remembers a server's session that it has stopped listening to. As with salts, twice the permitted skew: that
/// long a timestamp of its packets may still be good, and they would be new again.
pub const SERVER_SESSION_MEMORY_SECS: u64 = 60;

/// Sessions of a server that a client has stopped listening to and still remembers. Each is one restart of the server within the
/// minute before; past it a further one has to wait.
pub const SERVER_SESSIONS_FORGOTTEN_MAX: usize = 4;

/// SIP023 names no number. Each server on the way takes one header of 16 bytes off, and nobody has more than a few in a row.
pub const IDENTITY_KEYS_MAX: usize = 8;

/// Users of a port that are found by trying their keys. A stranger's head costs one attempt for each: about 3 µs, so 3 ms of one
/// processor for as many as this; a stranger's datagram costs a third of that. More users want more ports, or SIP022, whose users are looked up.
pub const TRIAL_KEYS_MAX: usize = 1024;

/// Users of a port that say who they are: looked up at the same cost however many there are, so the bound is for memory, 10 MiB.
pub const IDENTIFIED_USERS_MAX: usize = 65_536;

/// RFC 1929 gives a name and a password one length byte each.
pub const CREDENTIAL_BYTES_MAX: usize = 255;

/// A SOCKS4 user id has no length on the wire; it is held to what RFC 1929 allows a name.
pub const SOCKS4_USER_ID_BYTES_MAX: usize = 255;

/// The head of an HTTP request or answer: twice what browsers and curl send at their longest, and as much as the smallest buffer of a session holds.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header lines in the head of an HTTP request or answer: browsers send about 20, and the HTTP library of the forwarding path takes as many.
pub const HTTP_HEADERS_MAX: usize = 100;

/// Heads with a status of 1xx before an HTTP proxy's answer. Nobody has a reason for more than one, and each may be as long as a head.
pub const HTTP_INTERIM_HEADS_MAX: usize = 8;

/// The first version of the PROXY protocol bounds its line itself: 107 bytes with the line end.
pub const PROXY_V1_LINE_BYTES_MAX: usize = 107;

/// What may follow the fixed 16 bytes of a PROXY header of the second version: addresses (216 at most), and attributes, among them a
/// client's certificate.
pub const PROXY_V2_BLOCK_BYTES_MAX: usize = 4096;
