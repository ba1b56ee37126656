//! The memory that a walk of the model sees.
//!
//! It is written while it is read: the first fetch of a word draws what is there, fit for what the walker takes it for.
//! So a few draws make images dense in what walks really visit, and every word is drawn once: whoever comes by later, at
//! whatever level, finds the same. A frozen memory draws nothing and reads 0 where an image says nothing.
//!
//! In a race, stores land between the fetches of one walk. What the walk fetched is its trail; an image of exactly the
//! trail's words must lead an atomic walker to the same end.

use crate::dice::Dice;
use iommu_model::FetchKind;
use std::collections::BTreeMap;

/// Words of the widest table entry.
pub(crate) const WORDS_MAX: usize = 8;

/// Where things lie in the guest's physical address space. Pool and data follow one another; tables of images lie in the
/// pool, and nothing else does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Two pages through which data goes to and from QEMU's device: one that it writes, then one that it reads.
    pub(crate) mailbox: u64,
    /// First byte of the pages that images put tables into.
    pub(crate) pool: u64,
    /// The first of them are at fixed places in every image, and no pointer is drawn to them.
    pub(crate) fixed_pages: u64,
    /// First byte behind the pool, and of the pages that hold their own addresses.
    pub(crate) data: u64,
    /// First byte behind RAM.
    pub(crate) ram_end: u64,
    /// Addresses from here up to `void_end` have nothing behind them.
    pub(crate) void: u64,
    /// First byte behind the void.
    pub(crate) void_end: u64,
}

/// What is behind an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Tables, or nothing yet.
    Table,
    /// Words that hold their own address.
    Data,
    /// Nothing; an access fails.
    Void,
    /// Devices, firmware, the service tables, or who knows.
    Unknown,
}

impl Layout {
    pub(crate) fn place(&self, pa: u64) -> Place {
        match pa {
            pa if pa >= self.pool && pa < self.data => Place::Table,
            pa if pa >= self.data && pa < self.ram_end => Place::Data,
            pa if pa >= self.void && pa < self.void_end => Place::Void,
            _ => Place::Unknown,
        }
    }

    /// The 64-bit word of a data page: each half is its own address.
    pub(crate) fn data_word(pa: u64) -> u64 {
        let low = pa & !7;
        (low & 0xffff_ffff) | ((low + 4) << 32)
    }

    /// A page for a table.
    pub(crate) fn draw_table(&self, dice: &mut Dice) -> u64 {
        let pages = (self.data - self.pool) / 4096 - self.fixed_pages;
        self.pool + (self.fixed_pages + u64::from(dice.below(pages as u32))) * 4096
    }

    /// A page for data.
    pub(crate) fn draw_data(&self, dice: &mut Dice) -> u64 {
        let pages = (self.ram_end - self.data) / 4096;
        self.data + u64::from(dice.below(pages as u32)) * 4096
    }

    /// An address with nothing behind it, below 2^`bits`.
    pub(crate) fn draw_void(&self, dice: &mut Dice, bits: u32) -> u64 {
        let end = self.void_end.min(1 << bits);
        (self.void + dice.bits(bits) % (end - self.void)) & !0xfff
    }
}

/// One fetched or stored word.
pub(crate) type Word = (u64, u64);

/// The memory.
pub(crate) struct TableMemory {
    layout: Layout,
    /// What is there now, by 8-byte aligned address.
    now: BTreeMap<u64, u64>,
    /// Words that are another thing to those who take them for this.
    seen_as: Vec<(u64, FetchKind, u64)>,
    /// What was there before any walk wrote A or D.
    before: BTreeMap<u64, u64>,
    /// Draws; none if the memory is frozen.
    dice: Option<Dice>,
    /// Per fetch, how often of 100 a store lands before it.
    race_percent: u32,
    /// Words that are changed ten times more seldom, as every walk begins with them.
    shared_words: usize,
    /// Words that the walk has fetched.
    pub(crate) trail: Vec<Word>,
    /// What it has taken each of them for.
    pub(crate) kinds: Vec<FetchKind>,
    /// What the walk's updates replaced.
    updated: Vec<Word>,
    /// Stores that landed between fetches.
    pub(crate) nr_raced: u64,
    /// The walk left what is known: what happens is not the model's to say.
    pub(crate) lost: bool,
}

impl TableMemory {
    /// Draws what is fetched.
    pub(crate) fn drawn(layout: Layout, dice: Dice) -> Self {
        let empty = BTreeMap::new();
        Self {
            layout,
            now: empty.clone(),
            seen_as: Vec::new(),
            before: empty,
            dice: Some(dice),
            race_percent: 0,
            shared_words: 0,
            trail: Vec::new(),
            kinds: Vec::new(),
            updated: Vec::new(),
            nr_raced: 0,
            lost: false,
        }
    }

    /// The same, with stores between fetches.
    pub(crate) fn racing(layout: Layout, dice: Dice, percent: u32, shared_words: usize) -> Self {
        Self { race_percent: percent, shared_words, ..Self::drawn(layout, dice) }
    }

    /// Holds these words and nothing else.
    pub(crate) fn frozen(layout: Layout, words: &[Word]) -> Self {
        let now: BTreeMap<u64, u64> = words.iter().copied().collect();
        Self { before: now.clone(), now, dice: None, ..Self::drawn(layout, Dice::new(0)) }
    }

    /// A new walk begins.
    pub(crate) fn begin(&mut self) {
        self.trail.clear();
        self.kinds.clear();
        self.updated.clear();
        self.lost = false;
    }

    /// Takes back the updates of the last walk.
    pub(crate) fn undo(&mut self) {
        while let Some((pa, value)) = self.updated.pop() {
            self.now.insert(pa, value);
        }
    }

    /// Every word that was drawn or given, as it was at first.
    pub(crate) fn image(&self) -> Vec<Word> {
        self.before.iter().map(|(pa, value)| (*pa, *value)).collect()
    }

    /// What is at an 8-byte aligned address now.
    pub(crate) fn read(&self, pa: u64) -> u64 {
        match self.now.get(&pa) {
            Some(value) => *value,
            None if self.layout.place(pa) == Place::Data => Layout::data_word(pa),
            None => 0,
        }
    }

    /// The words of an entry of `nr_words`, naturally aligned; none if nothing is there. `draw` makes a fitting one.
    pub(crate) fn fetch(
        &mut self,
        pa: u64,
        nr_words: usize,
        kind: FetchKind,
        draw: &mut dyn FnMut(&mut Dice) -> [u64; WORDS_MAX],
    ) -> Option<[u64; WORDS_MAX]> {
        match self.layout.place(pa) {
            Place::Table => {}
            Place::Data => return Some(self.look(pa, nr_words, kind)),
            Place::Void => return None,
            Place::Unknown => {
                self.lost = true;
                return None;
            }
        }
        if let Some(mut dice) = self.dice.take() {
            if !self.now.contains_key(&pa) {
                let words = draw(&mut dice);
                for (n, value) in words.iter().take(nr_words).enumerate() {
                    self.now.entry(pa + 8 * n as u64).or_insert(*value);
                    self.before.entry(pa + 8 * n as u64).or_insert(*value);
                }
            }
            // What all walks share is changed more seldom.
            let percent = if self.trail.len() < self.shared_words { self.race_percent.div_ceil(10) } else { self.race_percent };
            if dice.percent(percent) {
                self.store_somewhere(pa, nr_words, draw(&mut dice), &mut dice);
            }
            self.dice = Some(dice);
        }
        Some(self.look(pa, nr_words, kind))
    }

    /// A CPU stores an entry: often where the walk is about to read, else anywhere that something was stored before.
    fn store_somewhere(&mut self, pa: u64, nr_words: usize, words: [u64; WORDS_MAX], dice: &mut Dice) {
        self.nr_raced += 1;
        if dice.percent(60) {
            for (n, value) in words.iter().take(nr_words).enumerate() {
                self.now.insert(pa + 8 * n as u64, *value);
            }
            return;
        }
        let nth = dice.below(self.now.len() as u32) as usize;
        let place = self.now.keys().nth(nth).copied().unwrap_or(pa);
        self.now.insert(place, words[0]);
    }

    fn look(&mut self, pa: u64, nr_words: usize, kind: FetchKind) -> [u64; WORDS_MAX] {
        let mut words = [0; WORDS_MAX];
        for (n, word) in words.iter_mut().take(nr_words).enumerate() {
            let place = pa + 8 * n as u64;
            *word = self.read(place);
            if let Some((.., value)) = self.seen_as.iter().find(|(pa, as_kind, _)| *pa == place && *as_kind == kind) {
                *word = *value;
            }
            self.trail.push((place, *word));
            self.kinds.push(kind);
        }
        words
    }

    /// An atomic compare-exchange; returns what was found. None if nothing is there.
    pub(crate) fn compare_exchange(&mut self, pa: u64, old: u64, new: u64) -> Option<u64> {
        match self.layout.place(pa) {
            Place::Table | Place::Data => {}
            Place::Void => return None,
            Place::Unknown => {
                self.lost = true;
                return None;
            }
        }
        let found = self.read(pa);
        if found == old {
            self.before.entry(pa).or_insert(found);
            self.now.insert(pa, new);
            self.updated.push((pa, found));
        }
        Some(found)
    }

    /// Words that walks have changed since the image was drawn.
    pub(crate) fn changed(&self) -> Vec<Word> {
        let of = |(pa, value): (&u64, &u64)| (self.before.get(pa) != Some(value)).then_some((*pa, *value));
        self.now.iter().filter_map(of).collect()
    }

    /// Takes in the words of a trail, unless one of them is known with another value, or the trail itself has one twice.
    pub(crate) fn adopt(&mut self, trail: &[Word]) -> bool {
        let mut fresh = BTreeMap::new();
        for (pa, value) in trail {
            let known = self.now.get(pa).or_else(|| fresh.get(pa)).copied();
            if known.is_some_and(|known| known != *value) {
                return false;
            }
            if known.is_none() && self.layout.place(*pa) == Place::Table {
                fresh.insert(*pa, *value);
            }
        }
        self.before.extend(&fresh);
        self.now.append(&mut fresh);
        true
    }

    /// What is at an address becomes another thing than it was all along.
    pub(crate) fn amend(&mut self, pa: u64, value: u64) {
        self.before.insert(pa, value);
        self.now.insert(pa, value);
    }

    /// Makes these words what they were, for everybody.
    pub(crate) fn restore(&mut self, words: &[Word]) {
        self.seen_as.clear();
        words.iter().for_each(|(pa, value)| self.amend(*pa, *value));
    }

    /// The same as [`Self::amend`] for one who takes it for this; tables may overlap, and the word be something else to others.
    pub(crate) fn amend_as(&mut self, pa: u64, kind: FetchKind, value: u64) {
        self.seen_as.retain(|(known, as_kind, _)| (*known, *as_kind) != (pa, kind));
        self.seen_as.push((pa, kind, value));
    }

    /// A store by somebody else than a walk.
    pub(crate) fn store32(&mut self, pa: u64, value: u32) {
        let word = self.read(pa & !7);
        self.before.entry(pa & !7).or_insert(word);
        let shift = 8 * (pa & 4);
        self.now.insert(pa & !7, word & !(0xffff_ffff << shift) | u64::from(value) << shift);
    }
}
