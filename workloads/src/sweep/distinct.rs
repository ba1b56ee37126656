//! How many different runs there were: a bounded set of trace hashes.

/// Most hashes that are told apart; a sweep with more reports a lower bound. 64 MiB at the most.
pub const LIMIT: usize = 1 << 22;

/// A set of hashes: open addressing, never more than half full, grown by doubling.
#[derive(Clone, Debug, Default)]
pub struct Distinct {
    /// 0 is an empty slot; the hash 0 itself counts apart.
    slots: Vec<u64>,
    count: usize,
    zero: bool,
}

impl Distinct {
    /// Adds a hash. At the limit new ones are dropped.
    pub fn add(&mut self, hash: u64) {
        if hash == 0 {
            self.zero = true;
            return;
        }
        if self.is_full() {
            return;
        }
        if (self.count + 1) * 2 > self.slots.len() {
            let grown = vec![0; (self.slots.len() * 2).max(1024)];
            for hash in std::mem::replace(&mut self.slots, grown).into_iter().filter(|&hash| hash != 0) {
                self.place(hash);
            }
        }
        self.count += usize::from(self.place(hash));
    }

    /// Adds the hashes of another set.
    pub fn extend(&mut self, other: &Distinct) {
        other.slots.iter().filter(|&&hash| hash != 0).for_each(|&hash| self.add(hash));
        self.zero |= other.zero;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        (self.count + usize::from(self.zero)) as u64
    }

    /// True when there may be more than were counted.
    pub fn is_full(&self) -> bool {
        self.count >= LIMIT
    }

    /// True when it is new.
    fn place(&mut self, hash: u64) -> bool {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                0 => {
                    self.slots[slot] = hash;
                    return true;
                }
                known if known == hash => return false,
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hash_counts_once() {
        let mut set = Distinct::default();
        for _ in 0..3 {
            for hash in 0..10_000u64 {
                set.add(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            }
        }
        assert_eq!((set.count(), set.is_full()), (10_000, false));
    }
}
