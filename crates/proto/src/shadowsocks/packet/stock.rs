//! Salts and keys for packets of SIP004 to come, where many together cost less than one after the other.
//!
//! Each thread keeps them for a key, and not for a sender: of many who send two packets each and then wait, each would have keys made
//! that it hardly uses, and that the processor has forgotten when it does. What is left of them stays, and is no secret of anybody's:
//! nothing has been sealed with it.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Chance;
use crate::shadowsocks::cipher::Cipher;
use crate::shadowsocks::cipher::subkeys::{self, LANES, Subkeys};
use crate::shadowsocks::key::Key;
use crate::shadowsocks::{Method, SALT_BYTES_MAX, Salt};

/// Names a key for as long as the process lives: none is ever another key's, also when this one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StockId(u64);

impl StockId {
    /// Names for `count` keys, the first of which is given.
    pub(super) fn reserve(count: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed))
    }

    /// The name of the key at `index` among those for which this is the first.
    pub(super) fn at(self, index: usize) -> Self {
        Self(self.0.wrapping_add(u64::try_from(index).unwrap_or(u64::MAX)))
    }

    /// Whether the next packet is sealed without chance, unless another one is sealed before.
    pub(super) fn has_ready(self) -> bool {
        STOCKS.with_borrow(|stocks| {
            let stock = &stocks[self.place()];
            stock.of == Some(self) && stock.ready.is_some()
        })
    }

    /// A salt that has not been used, and the cipher of its packet under `key`, of which this is the name.
    pub(super) fn take(self, key: &Key, chance: impl Chance) -> (Salt, Cipher) {
        STOCKS.with_borrow_mut(|stocks| {
            let stock = &mut stocks[self.place()];
            if stock.of != Some(self) {
                *stock = Stock { of: Some(self), ..Stock::NONE };
            }
            stock.take(key, chance)
        })
    }

    /// Keys in the same place displace each other. That costs time, and nothing else.
    fn place(self) -> usize {
        usize::try_from(self.0 % STOCKS_MAX as u64).unwrap_or(0)
    }
}

/// What one thread has for one key.
struct Stock {
    of: Option<StockId>,
    /// How many packets were sealed before there was any.
    sealed: u8,
    ready: Option<Box<Ready>>,
}

/// Of these, the last ones are used first.
struct Ready {
    left: usize,
    salts: [Salt; LANES],
    subkeys: Subkeys,
}

impl Stock {
    const NONE: Self = Self { of: None, sealed: 0, ready: None };

    fn take(&mut self, key: &Key, mut chance: impl Chance) -> (Salt, Cipher) {
        let method = key.method();
        if self.ready.is_none() {
            let mut random = [0; SALT_BYTES_MAX];
            chance.fill(&mut random[..method.salt_len()]);
            let own = Salt::new(method, random);
            match self.draw_more(method, own, chance) {
                Some(salts) => self.ready = Some(Box::new(Ready::new(key, salts))),
                None => return (own, Cipher::new(key, &own)),
            }
        }
        let Some(ready) = &mut self.ready else { unreachable!("it has just been filled") };
        ready.left -= 1;
        let (salt, subkey) = (ready.salts[ready.left], &ready.subkeys[ready.left]);
        let cipher = Cipher::with_subkey(method, &subkey[..method.key_len()]);
        self.ready.take_if(|ready| ready.left == 0);
        (salt, cipher)
    }

    /// Salts beside this one for packets to come, if many of them are likely, worth it, and to be had.
    fn draw_more(&mut self, method: Method, own: Salt, mut chance: impl Chance) -> Option<[Salt; LANES]> {
        if self.sealed < STOCKED_AFTER {
            self.sealed += 1;
            return None;
        }
        subkeys::worth_it()?;
        let mut salts = [own; LANES];
        for salt in &mut salts[1..] {
            let mut random = [0; SALT_BYTES_MAX];
            if !chance.more(&mut random[..method.salt_len()]) {
                return None;
            }
            *salt = Salt::new(method, random);
        }
        Some(salts)
    }
}

impl Ready {
    fn new(key: &Key, salts: [Salt; LANES]) -> Self {
        Self { left: LANES, salts, subkeys: subkeys::derive(key, &salts) }
    }
}

/// A key under which no more than this is sealed is not worth the work for many.
const STOCKED_AFTER: u8 = 16;

/// Keys that a thread has stocks for: a kibibyte each.
const STOCKS_MAX: usize = 16;

thread_local! {
    static STOCKS: RefCell<[Stock; STOCKS_MAX]> = const { RefCell::new([Stock::NONE; STOCKS_MAX]) };
}
