//! Fresh secrets.

use umbra_proto::shadowsocks::key::encode_password;
use umbra_proto::shadowsocks::{Generation, Method};
use zeroize::Zeroizing;

/// A new secret for `method`, as a configuration wants it: a key of the exact length, or a password that nobody guesses.
pub(crate) fn make(method: Method) -> Result<Zeroizing<String>, getrandom::Error> {
    let len = match method.generation() {
        Generation::Aead2022 => method.key_len(),
        Generation::Stream | Generation::Aead => PASSWORD_BYTES,
    };
    let mut secret = Zeroizing::new(vec![0; len]);
    getrandom::fill(&mut secret)?;
    Ok(encode_password(&secret))
}

/// The method to ask for a secret that fits `method`. There is none to be had in the name of an insecure one, whose passwords
/// are any text.
pub(crate) fn maker(method: Method) -> Method {
    if method.is_insecure() { Method::Chacha20IetfPoly1305 } else { method }
}

/// 192 bits: more than any search covers, and base64 of it ends without padding.
const PASSWORD_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_proto::shadowsocks::key::Key;

    #[test]
    fn every_method_gets_a_secret_that_fits_and_is_new_each_time() {
        for method in Method::ALL {
            let secret = make(method).unwrap();
            assert!(Key::from_password(method, &secret).is_ok(), "{method}");
            assert!(secret.len() >= 24);
            assert_ne!(*secret, *make(method).unwrap());
        }
    }
}
