//! Places with numbers that stay, in pages that come and go: growing moves nothing, and a page that nobody is left on is given back.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

/// Where something stands in a slab. Never nought, so that having none takes no room.
pub(super) type Number = NonZeroU32;

/// Values by number, each with a node `N`: what is looked at far more often than the value stands close together, apart from the values.
#[derive(Debug)]
pub(super) struct Slab<N, T> {
    pages: Vec<Option<Box<Page<N, T>>>>,
    /// Pages with room: the first of them takes the next value, so that the last ones become empty.
    roomy: BTreeSet<usize>,
    len: usize,
}

#[derive(Debug)]
struct Page<N, T> {
    /// One bit for each place that is taken.
    taken: u64,
    nodes: [N; PLACES],
    values: [Option<T>; PLACES],
}

/// As many as there are bits in a word.
const PLACES: usize = 64;

impl<N: Copy + Default, T> Slab<N, T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), roomy: BTreeSet::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Places that memory is held for.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.pages.iter().flatten().count() * PLACES
    }

    /// Keeps a value, with a node that says nothing yet. Gives its number.
    pub(super) fn insert(&mut self, value: T) -> Number {
        let page_number = self.roomy.first().copied().unwrap_or_else(|| self.add_page());
        let page = self.pages[page_number].get_or_insert_with(Page::empty);
        let bit = page.taken.trailing_ones();
        let place = usize::try_from(bit).unwrap_or(0);
        page.values[place] = Some(value);
        page.nodes[place] = N::default();
        page.taken |= 1 << bit;
        if page.taken == u64::MAX {
            self.roomy.remove(&page_number);
        }
        self.len += 1;
        u32::try_from(page_number * PLACES + place + 1)
            .ok()
            .and_then(Number::new)
            .expect("a table of less than 2^32 entries")
    }

    fn add_page(&mut self) -> usize {
        self.pages.push(None);
        self.roomy.insert(self.pages.len() - 1);
        self.pages.len() - 1
    }

    /// The node of a number that stands for something; of another, if the page is there, one that means nothing.
    pub(super) fn node(&self, number: Number) -> Option<&N> {
        let (page, place) = at(number);
        self.pages.get(page)?.as_ref()?.nodes.get(place)
    }

    pub(super) fn node_mut(&mut self, number: Number) -> Option<&mut N> {
        let (page, place) = at(number);
        self.pages.get_mut(page)?.as_mut()?.nodes.get_mut(place)
    }

    pub(super) fn get(&self, number: Number) -> Option<&T> {
        let (page, place) = at(number);
        self.pages.get(page)?.as_ref()?.values[place].as_ref()
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        let (page, place) = at(number);
        self.pages.get_mut(page)?.as_mut()?.values[place].as_mut()
    }

    pub(super) fn remove(&mut self, number: Number) -> Option<T> {
        let (page_number, place) = at(number);
        let slot = self.pages.get_mut(page_number)?;
        let page = slot.as_mut()?;
        let value = page.values[place].take()?;
        page.nodes[place] = N::default();
        page.taken &= !(1 << place);
        self.len -= 1;
        self.roomy.insert(page_number);
        if page.taken == 0 {
            *slot = None;
            self.trim();
        }
        Some(value)
    }

    /// Forgets pages at the end that hold nothing.
    fn trim(&mut self) {
        while let Some(None) = self.pages.last() {
            self.pages.pop();
            self.roomy.pop_last();
        }
        if self.pages.len() < self.pages.capacity() / 4 {
            self.pages.shrink_to(2 * self.pages.len());
        }
    }
}

impl<N: Copy + Default, T> Page<N, T> {
    fn empty() -> Box<Self> {
        Box::new(Self { taken: 0, nodes: [N::default(); PLACES], values: [const { None }; PLACES] })
    }
}

/// The page and the place on it.
fn at(number: Number) -> (usize, usize) {
    let index = usize::try_from(number.get() - 1).unwrap_or(usize::MAX);
    (index / PLACES, index % PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_empty_pages_go() {
        let mut slab = Slab::<(), _>::new();
        let numbers: Vec<_> = (0..1000).map(|value| slab.insert(value)).collect();
        assert_eq!(slab.places(), 1024);
        for (value, number) in numbers.iter().enumerate().filter(|(value, _)| *value != 777) {
            assert_eq!(slab.remove(*number), Some(value));
            assert_eq!(slab.remove(*number), None);
        }
        assert_eq!((slab.len(), slab.places()), (1, 64));
        assert_eq!(slab.get(numbers[777]), Some(&777));
        // The lowest page is the next to be used, so that the high one can go.
        let low = slab.insert(1);
        assert_eq!(low, Number::MIN);
        assert_eq!(slab.remove(numbers[777]), Some(777));
        assert_eq!((slab.pages.len(), slab.roomy.len()), (1, 1));
        assert_eq!(slab.remove(low), Some(1));
        assert!(slab.pages.is_empty() && slab.roomy.is_empty());
    }
}
