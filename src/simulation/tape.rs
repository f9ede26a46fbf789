//! Every decision of a simulation, as bytes on a tape: drawn at random the first time, and read when a run is repeated.
//! 0 is always the calm choice, so that a failing tape can be made simpler by zeros, and what follows its end is calm.

/// The decisions of one run.
#[derive(Clone, Default)]
pub(super) struct Tape {
    bytes: Vec<u8>,
    position: usize,
    /// The state of the generator; `None` if the tape is only read.
    random: Option<u64>,
}

impl Tape {
    /// Returns a tape that is written as it is read.
    pub(super) fn of_seed(seed: u64) -> Tape {
        Tape { random: Some(seed.wrapping_mul(2).wrapping_add(1)), ..Tape::default() }
    }

    /// Returns a tape of these decisions.
    pub(super) fn of(bytes: Vec<u8>) -> Tape {
        Tape { bytes, ..Tape::default() }
    }

    /// Returns the decisions that were read.
    pub(super) fn read(&self) -> &[u8] {
        &self.bytes[..self.position.min(self.bytes.len())]
    }

    /// Returns the next decision.
    pub(super) fn draw(&mut self) -> u8 {
        if self.position == self.bytes.len()
            && let Some(state) = &mut self.random
        {
            self.bytes.push((split_mix(state) >> 56) as u8);
        }
        self.position += 1;
        self.bytes.get(self.position - 1).copied().unwrap_or(0)
    }

    /// Decides whether something happens that happens `times` in 256; never on a calm tape.
    pub(super) fn happens(&mut self, times: u8) -> bool {
        u16::from(self.draw()) + u16::from(times) > 255
    }

    /// Returns a number below `end`; 0 on a calm tape.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let drawn = match end {
            0..=256 => u64::from(self.draw()),
            _ => {
                u64::from(self.draw()) << 16 | u64::from(self.draw()) << 8 | u64::from(self.draw())
            }
        };
        drawn % end.max(1)
    }
}

/// The next number of Steele, Lea and Flood's SplitMix64.
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Makes a failing tape simpler: shorter, and calmer. `fails` tells whether a tape still fails in the same way; it is called
/// no more than `attempts` times.
pub(super) fn shrink(
    tape: &[u8],
    mut attempts: usize,
    mut fails: impl FnMut(&[u8]) -> bool,
) -> Vec<u8> {
    let mut best = tape.to_vec();
    let mut is_better = |best: &mut Vec<u8>, other: Vec<u8>| {
        if attempts == 0 || other == *best {
            return false;
        }
        attempts -= 1;
        let fails = fails(&other);
        if fails {
            *best = other;
        }
        fails
    };
    let mut block = best.len().next_power_of_two();
    while block > 0 {
        let mut at = best.len().saturating_sub(block);
        loop {
            let end = (at + block).min(best.len());
            let without = [&best[..at], &best[end..]].concat();
            if !is_better(&mut best, without) {
                let mut calm = best.clone();
                calm[at..end].fill(0);
                is_better(&mut best, calm);
            }
            match at {
                0 => break,
                _ => at = at.saturating_sub(block).min(best.len()),
            }
        }
        block /= 2;
    }
    best
}

#[test]
fn a_tape_is_repeated_and_calm_after_its_end() {
    let mut tape = Tape::of_seed(1);
    let drawn: Vec<u8> = (0..100).map(|_| tape.draw()).collect();
    let mut again = Tape::of(tape.read().to_vec());
    assert!(drawn.iter().all(|byte| again.draw() == *byte));
    assert!(!again.happens(255) && again.below(1000) == 0);
}

#[test]
fn a_failing_tape_shrinks_to_what_makes_it_fail() {
    let tape: Vec<u8> = (0..=255).collect();
    let shrunk = shrink(&tape, 1000, |tape| tape.contains(&7) && tape.contains(&200));
    assert_eq!(shrunk, [7, 200]);
}
