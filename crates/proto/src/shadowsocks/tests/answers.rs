//! Answers of the original program: password `foobar`, salt or IV 00 01 02 …, and a text of 48 bytes that is an address and payload.

use super::cipher::{Cipher, TAG_BYTES};
use super::key::Key;
use super::vectors::unhex;
use super::{Method, Salt};

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
