//! Answers of the original program: password `foobar`, salt or IV 00 01 02 …, and a text of 48 bytes that is an address and payload.

use super::cipher::flat::{Flat, Way};
use super::cipher::{Cipher, TAG_BYTES};
use super::key::Key;
use super::vectors::unhex;
use super::{Method, Salt};

/// The text turned, without the IV.
const STREAMS: [(&str, &str); 26] = [
    (
        "aes-128-cfb",
        "0fdc15163929212d2976d48f2193143f22904824e7f5b105f6dc1c9ea2dbd98accc8bce06ca5e738d2b17060\
         0c68b491",
    ),
    (
        "aes-192-cfb",
        "0e31baaf934f7b32030ec428a85821147eda79bcc8c06bcac8fa620f58f978ce2e91449fe0267d0ce0d9da9e\
         309fac95",
    ),
    (
        "aes-256-cfb",
        "2d57f69caa71b6dc737cfd1285a3329fcf62097e9f27c70921f853cbfa2a9638021542c31b3f3df8e8b235db\
         2ece0524",
    ),
    (
        "aes-128-cfb8",
        "0fe17c5f9e4e715a7e65e6c5a37c7048c4cebe2afbd27a6118f3de0015ab847867624c0fca47cd26039d452a\
         c149eb8d",
    ),
    (
        "aes-256-cfb8",
        "2d367c26bb56f5c37a46e57a8570ce25d032d0d3f02c9dabeb1979f6515b3cd348ad932549ebcdcb50584895\
         9d8ce3bd",
    ),
    (
        "aes-128-cfb1",
        "31367b066ac981fce925af21b73da74b9b837303e6d0854a75efb52a45016c2c53a4de0b03d0afa441dabb4a\
         6e40cc1c",
    ),
    (
        "aes-256-cfb1",
        "7cf3230ef7a6105db929788e6dbbc1f73bf59aaefea8792d367c4190ebc2687d092f96ec372544cd98e2d5c9\
         216a4e0d",
    ),
    (
        "aes-128-ctr",
        "0fdc15163929212d2976d48f2193143f2e3a1404804ac6605bd41928bc7348d1392b5f4a78cc2bc0a566877f\
         90fce2e7",
    ),
    (
        "aes-256-ctr",
        "2d57f69caa71b6dc737cfd1285a3329fcd7901d4f4247d0ebae035c1e20803155f56048ba53ca51b750b972f\
         0988d38b",
    ),
    (
        "aes-128-ofb",
        "0fdc15163929212d2976d48f2193143f38439bd870d8a6a220b63413e48c3e145974b84d95b5d90e37d92c5b\
         2d22773d",
    ),
    (
        "aes-256-ofb",
        "2d57f69caa71b6dc737cfd1285a3329f951c93ed30e0b18e6d8d4ed4e15a5d8a43f45f704bf0e9192cbe4c6b\
         cd18497d",
    ),
    (
        "camellia-128-cfb",
        "4484489f59c1b799eaac47b848ffdaa9a42fd1f8b10facfdb6876c902ec556ff0648a36d473fea1a67d9a252\
         5e39166b",
    ),
    (
        "camellia-256-cfb",
        "98b8b4c060f3dbfbb1b248922f7cb51f4196b2f953e5dd9a7ad21e9b08c12545c733e545994cb7c18b5c790e\
         66a8f6e4",
    ),
    (
        "bf-cfb",
        "9a2f536c4abb7f4bfaea4500226ce54e2de9edd5026db4a4c3525ca288a69e987ad0e7675e8bcae787e2d826\
         4faca55c",
    ),
    (
        "cast5-cfb",
        "4711f2d1e5bc9d29a2f2b63ffba9ca1b329df70cef710ba3ba60d4c2727aa3829fd48d9ec5ff8a92e48bb5bb\
         5c321311",
    ),
    (
        "des-cfb",
        "bea324e48e0c03fa382efb8b78a4fa6fdc5b4d2daf1df161eed1fe0691babeba929ba4fd13d43dbe4f5457d3\
         f9166b2f",
    ),
    (
        "idea-cfb",
        "4dca807172c87f53ef2753282b518982bbee317cc5ee802bcf71910aa21927982596a8488e6d6283ededa192\
         860334a0",
    ),
    (
        "rc2-cfb",
        "a9117ae1c7991dbdebfb5ef771cb63784ac9edf4ed57b423b44969f98d56ae688cae470ed2f10893f4604629\
         133b7fb4",
    ),
    (
        "seed-cfb",
        "7c1aa9dfd33837c4e9c7e54316193db2472caf31877373598956f62441e46bcc8780ee0104d3c34ac2372e2f\
         5e762746",
    ),
    (
        "rc4",
        "b90b97ccc0d66bef5d128020c0dfffddb10089095b043c5bac8990149ff2a483d17f35821607bc2c416326da\
         49ec6ae8",
    ),
    (
        "rc4-md5",
        "e996b529487a6f08e48339e063b64e21c92f1dcf486d261ed71ff9028ccc38495943533ff1cc17660137a27b\
         5baa43d0",
    ),
    (
        "salsa20",
        "79487b47cff7d7eaf4c9cdc1fbc360baf6d685f62a12956b615fde05c4841a0eb9da69a95a9bab05f346d777\
         d5bbcdb2",
    ),
    (
        "chacha20",
        "425617df126beca6b146be371215b9936e345e10738bed765872a5bfc278d7a509d6c4bbaa8be793b928d2bf\
         9b8a1cf5",
    ),
    (
        "chacha20-ietf",
        "284720fc3bd215d22a702f49831124974157177d689a1c058c30a845935051e45a0c6e0d62b35886914c9831\
         42f75847",
    ),
    (
        "xchacha20",
        "2ff7e00f6bb46e4b51c999bd7fb1e5ab1070f14fff607abc71c495fafa5a21be989cd99772a3a8139a5a169f\
         1a43eb50",
    ),
    (
        "table",
        "10dccdcd10cd9b52d0d97a76f6ef8b6656df3581cf6a9bc77ed73089ac9a748ff193adf20c79c3ae4fb84318\
         4bb42027",
    ),
];

/// One record: its length, then the text.
const RECORDS: [(&str, &str); 7] = [
    (
        "aes-128-gcm",
        "f87e783d2134d105f096b1f026c1f2c2afbd3e7badda4db769d861477f749c23b808b70361cfd5cd431ab698\
         df5ee2b5a66bb14223e6c37a79f5e58bfe48df56e5d3bd6e32389103eb04de730cdfc224f023",
    ),
    (
        "aes-256-gcm",
        "26cc34f2bf436b614376edc82ec727c68c11266c70c82c40f93f768fa5f273de3106027a5bd82f8d45690dd5\
         214caabb68e2c0b3f14d58a2dcab2d8c22a5bd10160e64a35fb56eb09a84db0a3d3eef865457",
    ),
    (
        "aes-128-ocb",
        "5207ba6b285c3a84e077c968b5f7026b23d739614d78d06bd66fc697ca8bb28829f0bb9359d6b84ec4b2ee1d\
         8cfa324bb39864fa2011323042f82de0b5d0875f7c45bb8ea4aef715ebec594b1644be730207",
    ),
    (
        "aes-256-ocb",
        "ec5fed249f407424f24e096cd1868177bcc87791a43e9f6d6b059dac769d346c150cff75f94acb2944f1ac0c\
         205adccc5052ecfefd9e1f30209ca904fee2aabb8cdc38ef6adcdafe29dc4ad28010d1965a91",
    ),
    (
        "chacha20-ietf-poly1305",
        "5da7ddc61832f3a5e560cd43efc5e36f44eeaefdb15c71f9bfd20a8582c848e77ae82a0a85caabef1032f27b\
         41b07b3cc0dad17d39c3953b46a3ebf8e758147afc8340d24ebf20225fd36c645cdcc2c056b2",
    ),
    (
        "chacha20-poly1305",
        "5da787648e9c69758b645ddc876404c5af4361c8dbac856acf51ca20d41b01af72bf1a06614eb1e0e656d6e0\
         c76793f5675b0a0fadfe6aef9e0df69e4e61b5d672e3e6127d0d180ff55d11cf23b8324ce0b9",
    ),
    (
        "xchacha20-ietf-poly1305",
        "2c2e57acc2f6ad41b3477a33da909c84265c9312518a2e266b357ad1b91c214ab558c89850036982f0c76a25\
         7a65257caa90cf845e612610353b6ec4fe3393080e66e465b3126577f9fc00cf46371fa44007",
    ),
];

/// The text sealed as one datagram.
const DATAGRAMS: [(&str, &str); 3] = [
    (
        "aes-256-gcm",
        "27834b349ff5b4c3765b427d4c46139815e5e59e57422604662156a8d7cbf113d3e2d829bc363390ebabbddb\
         f8bcda4e6cb4db98a12fdc0174bcd59ca855de64",
    ),
    (
        "chacha20-ietf-poly1305",
        "5ce824f5420009ef68850b39caeba6f896ea36318b8208634e0a9ad2c0d951f49b3a6b61c52a5076d57be76b\
         9f0a6e46a8dcab328b288dea2891ea691322ff51",
    ),
    (
        "chacha20-poly1305",
        "5ce824f5420009ef68850b39caeba6f896ea36318b8208634e0a9ad2c0d951f49b3a6b61c52a5076d57be76b\
         9f0a6e463440aad058611de3cbccb7d726434438",
    ),
];

fn text() -> Vec<u8> {
    [1, 127, 0, 0, 1, 0, 0x50].into_iter().chain(0x41..=0x69).collect()
}

fn key(method: Method) -> Key {
    Key::from_password(method, "foobar").unwrap()
}

fn salt(method: Method) -> Salt {
    Salt::new(method, std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn sealed(cipher: &mut Cipher, text: &[u8]) -> Vec<u8> {
    let mut sealed = [text, &[0; TAG_BYTES]].concat();
    let (text, tag) = sealed.split_at_mut(text.len());
    cipher.seal(text, tag);
    sealed
}

#[test]
fn the_table_begins_as_the_originals_does() {
    let secret = key(Method::Table);
    let mut bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    Flat::new(&secret, &salt(Method::Table), Way::Seal).apply(&mut bytes);
    assert_eq!(bytes.to_vec(), unhex("cd101ff42ee561ed1a2555e3eb0124e9f89d1cb0c6311460022138b3299869dd"));
}

#[test]
fn streams_are_those_of_the_original_however_they_are_cut() {
    for (name, expected) in STREAMS {
        let method: Method = name.parse().unwrap();
        let secret = key(method);
        let flat = |way| Flat::new(&secret, &salt(method), way);
        for (way, from, to) in [(Way::Seal, text(), unhex(expected)), (Way::Open, unhex(expected), text())] {
            for step in 1..=from.len() {
                let (mut cipher, mut turned) = (flat(way), from.clone());
                turned.chunks_mut(step).for_each(|piece| cipher.apply(piece));
                assert_eq!(turned, to, "{name}, {way:?}, {step} at a time");
            }
        }
    }
}

#[test]
fn every_stream_method_has_an_answer_but_none_and_those_between_others() {
    let between = ["aes-192-cfb8", "aes-192-cfb1", "aes-192-ofb", "aes-192-ctr", "camellia-192-cfb", "none"];
    for method in Method::ALL.into_iter().filter(|method| method.is_insecure()) {
        let answered = STREAMS.iter().any(|(name, _)| *name == method.name());
        assert_eq!(answered, !between.contains(&method.name()), "{method}");
    }
}

#[test]
fn records_are_those_of_the_original() {
    for (name, expected) in RECORDS {
        let method: Method = name.parse().unwrap();
        let mut cipher = Cipher::new(&key(method), &salt(method));
        let record = [sealed(&mut cipher, &[0, 48]), sealed(&mut cipher, &text())].concat();
        assert_eq!(record, unhex(expected), "{name}");
    }
}

#[test]
fn datagrams_are_those_of_the_original() {
    for (name, expected) in DATAGRAMS {
        let method: Method = name.parse().unwrap();
        let datagram = sealed(&mut Cipher::new(&key(method), &salt(method)), &text());
        assert_eq!(datagram, unhex(expected), "{name}");
    }
}
