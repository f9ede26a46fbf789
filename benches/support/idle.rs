//! Memory per idle connection. Each connection has sent one request, all at nearly the same time, which is the worst that
//! keep-alive clients can do to memory.

use std::thread::sleep;
use std::time::Duration;

use super::servers::{Endpoint, Running};
use super::{Spread, resident};

const RUNS: usize = 3;

/// How long connections are idle before memory is measured; well within the keep-alive timeout of a minute.
const SILENCE: Duration = Duration::from_secs(4);

/// Prints the header of the table.
pub fn print_header(connections: usize) {
    super::print_header(&format!(
        "{connections} idle connections; {RUNS} runs, measured after {SILENCE:?}"
    ));
}

/// Returns what each connection adds to a server's memory, in KiB. `open` opens one, and `ask` sends a request over it.
pub fn memory_of_each<C>(
    connections: usize,
    start: impl Fn() -> Running,
    open: impl Fn(&Endpoint) -> C,
    ask: impl Fn(&mut C),
) -> Spread {
    let mut each = Spread::default();
    for _ in 0..RUNS {
        let server = start();
        let endpoint = &server.endpoints[0];
        ask(&mut open(endpoint));
        let before = endpoint.memory(resident);
        let mut opened: Vec<C> = (0..connections).map(|_| open(endpoint)).collect();
        opened.iter_mut().for_each(&ask);
        sleep(SILENCE);
        each.add((endpoint.memory(resident) - before) / connections as f64);
        // Connections are still served.
        ask(&mut opened[0]);
        ask(&mut opened[connections - 1]);
    }
    each
}
