//! Bytes that have arrived: taken whole or left where they are.

use std::ops::Range;

/// Why a decoder gave nothing: the message has not all arrived, or never will be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// Not yet: more bytes may complete the message.
    Incomplete,
    /// Never: no further byte can mend it.
    Malformed(E),
}

impl<E> Stop<E> {
    /// The same answer with another protocol's error.
    pub fn map<F>(self, convert: impl FnOnce(E) -> F) -> Stop<F> {
        match self {
            Self::Incomplete => Stop::Incomplete,
            Self::Malformed(error) => Stop::Malformed(convert(error)),
        }
    }
}

/// Reads fields off the front of a message that may be cut anywhere.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// Bytes read so far.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.taken..]
    }

    /// The next `count` bytes.
    pub fn slice<E>(&mut self, count: usize) -> Result<&'a [u8], Stop<E>> {
        let field = self.rest().get(..count).ok_or(Stop::Incomplete)?;
        self.taken += count;
        Ok(field)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize, E>(&mut self) -> Result<[u8; N], Stop<E>> {
        let field = self.rest().first_chunk::<N>().ok_or(Stop::Incomplete)?;
        self.taken += N;
        Ok(*field)
    }

    /// One byte.
    pub fn u8<E>(&mut self) -> Result<u8, Stop<E>> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// Two bytes, big-endian.
    pub fn u16<E>(&mut self) -> Result<u16, Stop<E>> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Eight bytes, big-endian.
    pub fn u64<E>(&mut self) -> Result<u64, Stop<E>> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

/// What one read from a peer left in the buffer, to be taken from the front by a handshake.
///
/// Bytes are mutable because sealed messages are opened where they lie. Whatever a handshake does not take belongs to
/// the next layer.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a mut [u8],
    taken: usize,
}

impl<'a> Input<'a> {
    /// All of `bytes`, none taken.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, taken: 0 }
    }

    /// Bytes taken so far; also the place of the next byte in the buffer.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Bytes not taken yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The same, for one who leaves them changed to the next layer.
    pub fn rest_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    /// Takes `count` bytes, or none if so many are not there.
    pub fn take(&mut self, count: usize) -> Option<&mut [u8]> {
        let end = self.taken.checked_add(count).filter(|end| *end <= self.bytes.len())?;
        let start = std::mem::replace(&mut self.taken, end);
        Some(&mut self.bytes[start..end])
    }

    /// Bytes taken earlier, at a place in the buffer that their taker named.
    pub fn opened(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[place]
    }

    /// Runs a decoder over the rest and takes exactly what it read, if it came to an end.
    pub fn decode<T, E>(
        &mut self,
        decoder: impl FnOnce(&mut Reader<'_>) -> Result<T, Stop<E>>,
    ) -> Result<T, Stop<E>> {
        let mut reader = Reader::new(&self.bytes[self.taken..]);
        let message = decoder(&mut reader)?;
        self.taken += reader.taken();
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_message_takes_nothing() {
        let mut bytes = [5, 1];
        let mut input = Input::new(&mut bytes);
        let outcome: Result<_, Stop<()>> = input.decode(|reader| {
            reader.u8()?;
            reader.u16()
        });
        assert_eq!(outcome, Err(Stop::Incomplete));
        assert_eq!(input.taken(), 0);
        assert!(input.take(3).is_none());
        assert_eq!(input.rest(), [5, 1]);
    }

    #[test]
    fn a_whole_message_leaves_the_next_layers_bytes() {
        let mut bytes = [1, 2, 3, 4];
        let mut input = Input::new(&mut bytes);
        let outcome: Result<u16, Stop<()>> = input.decode(|reader| reader.u16());
        assert_eq!(outcome, Ok(0x0102));
        assert_eq!(input.rest(), [3, 4]);
    }

    #[test]
    fn a_count_near_the_end_of_numbers_is_only_incomplete() {
        let mut bytes = [0; 4];
        let mut input = Input::new(&mut bytes);
        input.take(2).unwrap();
        assert!(input.take(usize::MAX).is_none());
    }
}
