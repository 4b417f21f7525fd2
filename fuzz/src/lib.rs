//! What the fuzz targets share: machines driven in pieces, streams sealed by a second hand, and scripts of records.

pub mod handshake;
pub mod packet;

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA1_FOR_LEGACY_USE_ONLY, KeyType, Salt as HkdfSalt};
use umbra_proto::address::Address;
use umbra_proto::shadowsocks::head::{ExpectHead, ExpectTarget, Head, HeadError};
use umbra_proto::shadowsocks::key::Key;
use umbra_proto::shadowsocks::keyring::{Keyring, TrialOrder};
use umbra_proto::shadowsocks::replay::SaltStore;
use umbra_proto::shadowsocks::stream::{HeadReads, OpenError, Opened, Opener, Sealer};
use umbra_proto::shadowsocks::{Generation, Method, Salt, UnixTime};
use umbra_proto::wire::Input;
use umbra_proto::{Handshake, Step};

pub const NOW: UnixTime = UnixTime(1_700_000_000);
pub const REQUEST_SALT: u8 = 0x80;
pub const RESPONSE_SALT: u8 = 0xc0;

pub fn method(number: u8) -> Method {
    Method::COMMON[usize::from(number) % Method::COMMON.len()]
}

/// Any method with tags, the rare ones as well.
pub fn sound_method(number: u8) -> Method {
    pick(number, |method| !method.is_insecure())
}

/// Any method without tags.
pub fn flat_method(number: u8) -> Method {
    pick(number, |method| method.is_insecure())
}

fn pick(number: u8, is_wanted: fn(&Method) -> bool) -> Method {
    let count = Method::ALL.iter().filter(|method| is_wanted(method)).count();
    let mut wanted = Method::ALL.into_iter().filter(is_wanted);
    wanted.nth(usize::from(number) % count).expect("one of them")
}

pub fn key(method: Method) -> Key {
    // Made once: the shuffle of `table` takes longer than everything else in an execution.
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let make = |method: Method| Key::from_bytes(method, &SECRET[..method.key_len()]);
        Method::ALL.into_iter().map(|method| make(method).expect("a secret of the method's length")).collect()
    });
    KEYS.iter().find(|key| key.method() == method).expect("there is one for every method").clone()
}

/// The salt that is this byte throughout.
pub fn salt(method: Method, byte: u8) -> Salt {
    Salt::new(method, [byte; 32])
}

/// `bytes` cut at these places.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &[u16]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (bytes.len() + 1)).collect();
    places.sort_unstable();
    let starts = std::iter::once(0).chain(places.iter().copied());
    let ends = places.iter().copied().chain([bytes.len()]);
    starts.zip(ends).map(|(start, end)| &bytes[start..end]).collect()
}

/// `bytes` one by one, or in as many pieces as can be tried often enough: each is one more read of all that waits.
pub fn crumbs(bytes: &[u8]) -> Vec<&[u8]> {
    const PIECES_MAX: usize = 64;
    let small = if bytes.len() <= 512 { 1 } else { bytes.len().div_ceil(PIECES_MAX) };
    bytes.chunks(small).collect()
}

/// What a server made of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub target: Option<Address>,
    /// Where another server understands the stream; what is left over is then what is to be sent there.
    pub forward: Option<Address>,
    /// What the keyring calls whoever it was.
    pub user: Option<String>,
    pub early: Vec<u8>,
    pub payload: Vec<u8>,
    pub leftover: Vec<u8>,
    pub error: Option<HeadError>,
}

impl Served {
    /// All that the client said.
    pub fn said(&self) -> Vec<u8> {
        [&self.early[..], &self.payload].concat()
    }

    /// With the bytes forgotten that came after an error, for these depend on how much a read brought.
    pub fn settled(self) -> Self {
        if self.error.is_some() { Self { leftover: Vec::new(), ..self } } else { self }
    }
}

enum Server<'k> {
    Head(ExpectHead<'k>),
    Target(ExpectTarget),
    Records(Opener),
    Forward,
}

/// Feeds a session to a fresh server, each piece as one read.
pub fn serve(key: &Key, head: HeadReads, pieces: &[&[u8]]) -> Served {
    serve_holders(&key.clone().into(), head, pieces)
}

/// The same for whoever holds a key of `keyring`.
pub fn serve_holders(keyring: &Keyring, head: HeadReads, pieces: &[&[u8]]) -> Served {
    let mut store = SaltStore::new(keyring.method());
    let mut served = Served::default();
    let mut server = Server::Head(ExpectHead::new(keyring, TrialOrder::new(keyring), head));
    let mut waiting = Vec::new();
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let mut input = Input::new(&mut waiting);
        match read(server, keyring, &mut store, &mut input, &mut served) {
            Ok(next) => server = next,
            Err(error) => {
                served.error = Some(error);
                break;
            }
        }
        let taken = input.taken();
        waiting.drain(..taken);
    }
    served.leftover = waiting;
    served
}

fn read<'k>(
    mut server: Server<'k>,
    keyring: &Keyring,
    store: &mut SaltStore,
    input: &mut Input<'_>,
    served: &mut Served,
) -> Result<Server<'k>, HeadError> {
    let mut output = Vec::new();
    loop {
        match server {
            Server::Head(expect) => match expect.advance(input, &mut output)? {
                Step::Wait(expect) => return Ok(Server::Head(expect)),
                Step::Done(Head::Authentic(head)) => server = Server::Target(head.admit(store, NOW)?),
                Step::Done(Head::Forward(forward)) => {
                    served.forward = Some(forward.to);
                    served.user = keyring.name(forward.holder).map(str::to_owned);
                    server = Server::Forward;
                }
            },
            Server::Target(expect) => match expect.advance(input, &mut output)? {
                Step::Wait(expect) => return Ok(Server::Target(expect)),
                Step::Done(request) => {
                    served.target = Some(request.target);
                    served.user = keyring.name(request.holder).map(str::to_owned);
                    served.early = input.opened(request.early).to_vec();
                    server = Server::Records(request.opener);
                }
            },
            Server::Records(mut opener) => {
                open_all(&mut opener, input, &mut served.payload)?;
                return Ok(Server::Records(opener));
            }
            Server::Forward => return Ok(Server::Forward),
        }
        assert!(output.is_empty(), "a Shadowsocks server is silent");
    }
}

/// What a client made of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub payload: Vec<u8>,
    pub leftover: Vec<u8>,
    pub error: Option<OpenError>,
}

impl Received {
    /// With the bytes forgotten that came after an error, for these depend on how much a read brought.
    pub fn settled(self) -> Self {
        if self.error.is_some() { Self { leftover: Vec::new(), ..self } } else { self }
    }
}

/// Feeds a response to the client whose request began with [`REQUEST_SALT`], each piece as one read.
pub fn receive(key: &Key, head: HeadReads, pieces: &[&[u8]]) -> Received {
    let mut opener = Opener::response(key, salt(key.method(), REQUEST_SALT), head);
    let mut received = Received::default();
    let mut waiting = Vec::new();
    for piece in pieces {
        waiting.extend_from_slice(piece);
        let mut input = Input::new(&mut waiting);
        if let Err(error) = open_all(&mut opener, &mut input, &mut received.payload) {
            received.error = Some(error);
            let mut more = *b"nothing opens after a failure, however many bytes come";
            let mut more = Input::new(&mut more);
            assert!(opener.open(&mut more, NOW).is_err() && more.taken() == 0 && !opener.may_end(0));
            break;
        }
        let taken = input.taken();
        waiting.drain(..taken);
    }
    received.leftover = waiting;
    received
}

fn open_all(opener: &mut Opener, input: &mut Input<'_>, payload: &mut Vec<u8>) -> Result<(), OpenError> {
    loop {
        match opener.open(input, NOW)? {
            Opened::Payload(place) => payload.extend_from_slice(input.opened(place)),
            Opened::Incomplete(needed) => {
                assert!(needed > input.rest().len(), "what is all there is opened");
                return Ok(());
            }
        }
    }
}

/// A stream of exactly these texts, each sealed, after the salt: what a holder of the key could send. It shares no code
/// with the machines under test.
pub fn forge(method: Method, salt: u8, texts: &[Vec<u8>]) -> Vec<u8> {
    let key_len = method.key_len();
    let (secret, salt) = (&SECRET[..key_len], [salt; 32]);
    let mut subkey = [0; 32];
    let subkey = &mut subkey[..key_len];
    match method.generation() {
        Generation::Aead => HkdfSalt::new(HKDF_SHA1_FOR_LEGACY_USE_ONLY, &salt[..key_len])
            .extract(secret)
            .expand(&[b"ss-subkey"], Len(key_len))
            .and_then(|okm| okm.fill(subkey))
            .expect("a short key"),
        Generation::Stream => unreachable!("{method} seals nothing"),
        Generation::Aead2022 => {
            let material = [secret, &salt[..key_len]].concat();
            let derived = blake3::derive_key("shadowsocks 2022 session subkey", &material);
            subkey.copy_from_slice(&derived[..key_len]);
        }
    }
    let algorithm = match method {
        Method::Aes128Gcm | Method::Blake3Aes128Gcm => &AES_128_GCM,
        Method::Aes256Gcm | Method::Blake3Aes256Gcm => &AES_256_GCM,
        Method::Chacha20IetfPoly1305 | Method::Blake3Chacha20Poly1305 => &CHACHA20_POLY1305,
        // The second hand knows the methods that `method` gives.
        other => unreachable!("{other} is none of the common methods"),
    };
    let cipher =
        LessSafeKey::new(UnboundKey::new(algorithm, subkey).expect("a key of the algorithm's length"));
    let mut wire = salt[..key_len].to_vec();
    for (number, text) in (0_u64..).zip(texts) {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let mut text = text.clone();
        cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
            .expect("a short text");
        wire.extend(text);
    }
    wire
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// Payload of a record, short and free or long and plain.
#[derive(Arbitrary, Clone, Debug)]
pub enum Payload {
    Bytes(Vec<u8>),
    Long(u16),
}

impl Payload {
    /// Between 1 and `max` bytes.
    pub fn bytes(&self, max: usize) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) if bytes.is_empty() => vec![7],
            Self::Bytes(bytes) => bytes[..bytes.len().min(max)].to_vec(),
            // Every size comes up, and small ones often: what is large is slow, and seldom finds more.
            Self::Long(len) => {
                let len = usize::from(len >> (2 * (len & 7)));
                PLAIN[..len.clamp(1, max)].to_vec()
            }
        }
    }
}

/// One step of a sealed stream on its way through a hostile network.
#[derive(Arbitrary, Debug)]
pub enum Record {
    Whole(Payload),
    Flipped { payload: Payload, at: u16, bit: u8 },
    Cut { payload: Payload, at: u16 },
    Lost(Payload),
    Twice(Payload),
    Noise(Vec<u8>),
}

/// Seals a script's records and carries them over; gives the wire and what an honest opener must release, no more and
/// no less: the records up to which the wire is what was sealed. Noise may by chance make a cut record whole again.
pub fn carry(sealer: &mut Sealer, script: &[Record]) -> (Vec<u8>, Vec<u8>) {
    let (mut wire, mut sealed, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let mut longest = usize::MAX;
    let mut seal = |payload: &Payload| {
        let payload = payload.bytes(sealer.payload_max().min(longest));
        if payload.len() > SHORT {
            longest = SHORT;
        }
        let mut record = vec![0; sealer.head_len()];
        record.extend_from_slice(&payload);
        record.resize(record.len() + sealer.tail_len(), 0);
        sealer.seal(&mut record, NOW);
        let start = sealed.len();
        sealed.extend_from_slice(&record);
        records.push((start..sealed.len(), payload));
        record
    };
    for step in script {
        match step {
            Record::Whole(payload) => wire.extend(seal(payload)),
            Record::Flipped { payload, at, bit } => {
                let mut record = seal(payload);
                let at = usize::from(*at) % record.len();
                record[at] ^= 1 << (bit % 8);
                wire.extend(record);
            }
            Record::Cut { payload, at } => {
                let record = seal(payload);
                wire.extend_from_slice(&record[..usize::from(*at) % record.len()]);
            }
            Record::Lost(payload) => drop(seal(payload)),
            Record::Twice(payload) => wire.extend(seal(payload).repeat(2)),
            Record::Noise(bytes) => wire.extend_from_slice(bytes),
        }
    }
    // Slices are compared and moved as a whole: a loop over bytes would tell the fuzzer of each, which takes longer than the ciphers.
    let untouched =
        records.into_iter().take_while(|(place, _)| wire.get(place.clone()) == sealed.get(place.clone()));
    let said = untouched.map(|(_, payload)| payload).collect::<Vec<_>>().concat();
    (wire, said)
}

/// One record of a session may be as long as its method has them, and others have this many bytes at most: no record is taken otherwise
/// for the length of the one before it, and ciphers would have most of the time.
const SHORT: usize = 1024;

pub const SECRET: [u8; 32] = *b"thirty-two bytes that are public";

/// Bytes that tell where they come from.
static PLAIN: [u8; u16::MAX as usize] = {
    let mut plain = [0; u16::MAX as usize];
    let mut at = 0;
    while at < plain.len() {
        plain[at] = (at % 251) as u8;
        at += 1;
    }
    plain
};
