//! What one CPU of the weak model has seen, and with it what its next loads may still return.

use iommu_model::addr::Pa;

use super::history::Time;

/// Words and pointers a view remembers. A word that falls out raises the floor instead: less is allowed, never more.
const REMEMBERED: usize = 8;

/// What a CPU has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuView {
    /// Loads are performed at this time or later: set by barriers and acquire loads.
    floor: Time,
    /// The newest store that any load has returned since the floor was set: what a read barrier raises the floor to.
    newest_read: Time,
    /// The store each recently accessed word was seen with; a time of zero is a free place.
    seen: [(u64, Time); REMEMBERED],
    next_seen: usize,
    /// What recently loaded pointers point to: first byte, bytes, and the time of the store that was read.
    pointers: [(u64, u64, Time); REMEMBERED],
    next_pointer: usize,
}

impl CpuView {
    pub(super) fn floor(&self) -> Time {
        self.floor
    }

    /// The earliest moment at which a load at `pa` may be performed: the floor, or the load of the pointer it goes through.
    pub(super) fn floor_at(&self, pa: Pa) -> Time {
        let through = self.pointers.iter().filter(|(first, bytes, _)| pa.0.wrapping_sub(*first) < *bytes);
        through.map(|(_, _, at)| *at).max().unwrap_or_default().max(self.floor)
    }

    /// The store that the word at `pa` was last seen with: nothing older may be returned.
    pub(super) fn seen(&self, pa: Pa) -> Time {
        self.seen.iter().filter(|(at, _)| *at == pa.0).map(|(_, time)| *time).max().unwrap_or_default()
    }

    /// Notes that the word at `pa` was seen as stored at `time`.
    pub(super) fn see(&mut self, pa: Pa, time: Time) {
        if time <= self.floor {
            return;
        }
        if let Some(entry) = self.seen.iter_mut().find(|(at, known)| *at == pa.0 && *known > Time(0)) {
            entry.1 = entry.1.max(time);
            return;
        }
        let (_, forgotten) = std::mem::replace(&mut self.seen[self.next_seen], (pa.0, time));
        self.next_seen = (self.next_seen + 1) % REMEMBERED;
        self.raise(forgotten);
    }

    /// Notes that a load returned what was stored at `time`.
    pub(super) fn read(&mut self, pa: Pa, time: Time) {
        self.see(pa, time);
        self.newest_read = self.newest_read.max(time);
    }

    /// Notes that a load returned a pointer into the `bytes` bytes at `first`.
    pub(super) fn read_pointer(&mut self, first: Pa, bytes: u64, time: Time) {
        if time > self.floor {
            self.pointers[self.next_pointer] = (first.0, bytes, time);
            self.next_pointer = (self.next_pointer + 1) % REMEMBERED;
        }
    }

    /// Later loads are performed at `time` or later.
    pub(super) fn raise(&mut self, time: Time) {
        self.floor = self.floor.max(time);
    }

    /// A read barrier.
    pub(super) fn read_barrier(&mut self) {
        self.raise(self.newest_read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_forgotten_raises_the_floor() {
        let mut view = CpuView::default();
        for n in 0..REMEMBERED as u64 {
            view.see(Pa(n * 8), Time(n + 1));
        }
        assert_eq!(view.floor(), Time(0));
        assert_eq!(view.seen(Pa(0)), Time(1));
        view.see(Pa(0x1000), Time(100));
        assert_eq!(view.floor(), Time(1));
    }

    #[test]
    fn a_read_barrier_raises_the_floor_to_the_newest_store_read() {
        let mut view = CpuView::default();
        view.read(Pa(8), Time(5));
        view.read(Pa(16), Time(3));
        assert_eq!(view.floor(), Time(0));
        view.read_barrier();
        assert_eq!(view.floor(), Time(5));
    }

    #[test]
    fn only_loads_through_the_pointer_are_held_behind_its_load() {
        let mut view = CpuView::default();
        view.read_pointer(Pa(0x1000), 64, Time(7));
        assert_eq!(view.floor_at(Pa(0x1038)), Time(7));
        assert_eq!(view.floor_at(Pa(0x1040)), Time(0));
    }
}
