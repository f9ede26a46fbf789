//! What connections cost that say nothing: each has asked once, all of them within a moment, which is the worst that
//! peers who keep their connections can do to memory.

use std::thread::sleep;
use std::time::Duration;

use super::servers::{Running, Way};
use super::{Spread, resident};

const RUNS: usize = 3;

/// How long a server has to get used to silence before its memory is looked at; well within a kept-alive minute.
const SILENCE: Duration = Duration::from_secs(4);

/// The first line of the table.
pub fn head(connections: usize) {
    super::head(&format!("{connections} idle connections; {RUNS} runs, a look after {SILENCE:?}"));
}

/// What each connection adds to a server's memory, in KiB. `open` makes one, and `ask` checks that it is served.
pub fn memory_of_each<C>(
    connections: usize,
    start: impl Fn() -> Running,
    open: impl Fn(&Way) -> C,
    ask: impl Fn(&mut C),
) -> Spread {
    let mut each = Spread::default();
    for _ in 0..RUNS {
        let server = start();
        let way = &server.ways[0];
        ask(&mut open(way));
        let before = way.memory(resident);
        let mut opened: Vec<C> = (0..connections).map(|_| open(way)).collect();
        opened.iter_mut().for_each(&ask);
        sleep(SILENCE);
        each.add((way.memory(resident) - before) / connections as f64);
        // They are still served, the first and the last.
        ask(&mut opened[0]);
        ask(&mut opened[connections - 1]);
    }
    each
}
