//! Names and passwords: what a door asks of its clients, and what we say at the doors of others.

use std::fmt;
use std::sync::Arc;

use zeroize::{Zeroize as _, Zeroizing};

use crate::limits::CREDENTIAL_BYTES_MAX;

/// A name and its password, 1 to 255 bytes each, as RFC 1929 can carry them. The password is wiped when dropped; neither is printed.
#[derive(Clone)]
pub struct Credentials {
    name: UserName,
    password: Zeroizing<Box<[u8]>>,
}

/// The name of a user that a door knows. Cheap to clone; printed only by who asks for its text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserName(Arc<str>);

/// The users of a door. Passwords are not kept: of each user there is a keyed digest, wiped when dropped with its key.
pub struct Users {
    key: Zeroizing<[u8; DIGEST_KEY_BYTES]>,
    users: Box<[User]>,
}

/// Why names and passwords are none, or not a door's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsersError {
    /// There is nobody to let in.
    NoUsers,
    /// A name is empty.
    EmptyName,
    /// A name is longer than 255 bytes.
    LongName,
    /// A password is empty.
    EmptyPassword,
    /// A password is longer than 255 bytes.
    LongPassword,
    /// Two users have one name.
    DuplicateName,
}

impl Credentials {
    /// Checks the lengths.
    pub fn new(name: &str, password: &str) -> Result<Self, UsersError> {
        if name.is_empty() {
            return Err(UsersError::EmptyName);
        }
        if name.len() > CREDENTIAL_BYTES_MAX {
            return Err(UsersError::LongName);
        }
        if password.is_empty() {
            return Err(UsersError::EmptyPassword);
        }
        if password.len() > CREDENTIAL_BYTES_MAX {
            return Err(UsersError::LongPassword);
        }
        Ok(Self { name: UserName(name.into()), password: Zeroizing::new(password.as_bytes().into()) })
    }

    /// Whose they are.
    pub fn name(&self) -> &UserName {
        &self.name
    }

    pub(crate) fn password(&self) -> &[u8] {
        &self.password
    }
}

impl UserName {
    /// The name as it was configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

struct User {
    name: UserName,
    digest: blake3::Hash,
}

impl Users {
    /// A door's users. `key` is drawn at random for each door, so that nobody outside can compute a digest.
    pub fn new(
        key: [u8; DIGEST_KEY_BYTES],
        credentials: impl IntoIterator<Item = Credentials>,
    ) -> Result<Self, UsersError> {
        let key = Zeroizing::new(key);
        let mut users = Vec::new();
        let mut names = std::collections::HashSet::new();
        for Credentials { name, password } in credentials {
            if !names.insert(name.clone()) {
                return Err(UsersError::DuplicateName);
            }
            users.push(User { digest: digest(&key, name.as_str().as_bytes(), &password), name });
        }
        if users.is_empty() {
            return Err(UsersError::NoUsers);
        }
        Ok(Self { key, users: users.into() })
    }

    /// What they are called.
    pub fn names(&self) -> impl Iterator<Item = &UserName> {
        self.users.iter().map(|user| &user.name)
    }

    /// Who has this name and this password.
    ///
    /// The time depends on how long the two are and on how many users there are, and not on what is wrong: both go into
    /// one digest, which is compared with every user's in constant time.
    pub fn check(&self, name: &[u8], password: &[u8]) -> Option<&UserName> {
        let offered = digest(&self.key, name, password);
        let mut found = None;
        for user in &self.users {
            // There is no early way out of the loop.
            if is_same(&user.digest, &offered) {
                found = Some(&user.name);
            }
        }
        found
    }
}

/// The library compares digests in constant time.
fn is_same(one: &blake3::Hash, other: &blake3::Hash) -> bool {
    #[cfg(test)]
    tests::COMPARED.set(tests::COMPARED.get() + 1);
    one == other
}

fn digest(key: &[u8; DIGEST_KEY_BYTES], name: &[u8], password: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    // The length keeps `ab`, `c` apart from `a`, `bc`.
    hasher.update(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(name);
    hasher.update(password);
    let digest = hasher.finalize();
    hasher.zeroize();
    digest
}

impl Drop for User {
    fn drop(&mut self) {
        self.digest.zeroize();
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserName(..)")
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users<{}>(..)", self.users.len())
    }
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUsers => f.write_str("there are no users"),
            Self::EmptyName => f.write_str("the user name is empty"),
            Self::LongName => write!(f, "the user name is longer than {CREDENTIAL_BYTES_MAX} bytes"),
            Self::EmptyPassword => f.write_str("the password is empty"),
            Self::LongPassword => write!(f, "the password is longer than {CREDENTIAL_BYTES_MAX} bytes"),
            Self::DuplicateName => f.write_str("two users have one name"),
        }
    }
}

impl std::error::Error for UsersError {}

/// Bytes of the random key that [`Users::new`] wants.
pub const DIGEST_KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::testing::users;
    use proptest::prelude::*;

    thread_local! {
        /// Digests that were compared on this thread.
        pub(super) static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn whoever_knocks_costs_a_comparison_with_every_user() {
        let login =
            |number: u16| Credentials::new(&format!("user {number}"), &format!("secret {number}")).unwrap();
        let users = Users::new([7; DIGEST_KEY_BYTES], (0..1000).map(login)).unwrap();
        let found = |name: &str, password: &str| {
            COMPARED.set(0);
            let found = users.check(name.as_bytes(), password.as_bytes()).map(UserName::as_str);
            (found, COMPARED.get())
        };
        assert_eq!(found("user 0", "secret 0"), (Some("user 0"), 1000), "the first");
        assert_eq!(found("user 500", "secret 500"), (Some("user 500"), 1000), "one of them");
        assert_eq!(found("user 999", "secret 999"), (Some("user 999"), 1000), "the last");
        for (name, password) in
            [("user 0", "secret 9"), ("user 999", "secret 0"), ("nobody", "secret 0"), ("", "")]
        {
            assert_eq!(found(name, password), (None, 1000), "{name}");
        }
    }

    #[test]
    fn a_name_with_its_password_is_known_and_nothing_else_is() {
        let users = users();
        let check = |name: &str, password: &str| {
            users.check(name.as_bytes(), password.as_bytes()).map(UserName::as_str)
        };
        assert_eq!(check("alice", "secret"), Some("alice"));
        assert_eq!(check("bob", "hunter2"), Some("bob"));
        for (name, password) in [
            ("alice", "hunter2"),
            ("alice", "secre"),
            ("alice", "secret1"),
            ("alice", ""),
            ("alices", "ecret"),
            ("alic", "esecret"),
            ("", "alicesecret"),
            ("carol", "secret"),
            ("Alice", "secret"),
            ("", ""),
        ] {
            assert_eq!(check(name, password), None, "{name} {password}");
        }
        assert_eq!(users.check(b"alice\xff", &[0; 70_000]), None);
    }

    #[test]
    fn names_and_passwords_have_one_to_255_bytes() {
        let most = "x".repeat(255);
        let long = "x".repeat(256);
        let why = |name: &str, password: &str| Credentials::new(name, password).err();
        assert_eq!(why(&most, &most), None);
        assert_eq!(why("", "p"), Some(UsersError::EmptyName));
        assert_eq!(why("n", ""), Some(UsersError::EmptyPassword));
        assert_eq!(why(&long, "p"), Some(UsersError::LongName));
        assert_eq!(why("n", &long), Some(UsersError::LongPassword));
        assert_eq!(why(&"é".repeat(128), "p"), Some(UsersError::LongName));
    }

    #[test]
    fn a_door_has_users_and_each_name_once() {
        let login = |name, password| Credentials::new(name, password).unwrap();
        assert_eq!(Users::new([0; 32], []).err(), Some(UsersError::NoUsers));
        let twice = [login("a", "b"), login("c", "d"), login("a", "e")];
        assert_eq!(Users::new([0; 32], twice).err(), Some(UsersError::DuplicateName));
        // One password for two users is theirs to judge.
        assert!(Users::new([0; 32], [login("a", "b"), login("c", "b")]).is_ok());
    }

    #[test]
    fn neither_names_nor_passwords_are_printed() {
        let login = Credentials::new("alice", "secret").unwrap();
        let printed = format!("{login:?} {:?} {:?}", login.name(), users());
        assert!(!printed.contains("alice") && !printed.contains("secret"), "{printed}");
    }

    #[test]
    fn digests_of_two_doors_differ() {
        let door = |key| Users::new([key; 32], [Credentials::new("a", "b").unwrap()]).unwrap();
        assert_ne!(door(0).users[0].digest, door(1).users[0].digest);
    }

    proptest! {
        #[test]
        fn only_the_very_same_name_and_password_are_let_in(
            name in ".{1,40}", password in ".{1,40}", other: Vec<u8>, another: Vec<u8>,
        ) {
            let users = Users::new([3; 32], [Credentials::new(&name, &password).unwrap()]).unwrap();
            let (name, password) = (name.as_bytes(), password.as_bytes());
            prop_assert!(users.check(name, password).is_some());
            prop_assert_eq!(users.check(&other, password).is_some(), other == name);
            prop_assert_eq!(users.check(name, &another).is_some(), another == password);
            for cut in 1..name.len() {
                let moved = [&name[cut..], password].concat();
                prop_assert!(users.check(&name[..cut], &moved).is_none());
            }
        }
    }
}
