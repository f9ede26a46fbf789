//! How many file descriptors this process has and may have (`ulimit -n`), and how they are shared out if they are too few. Knows nothing of
//! what they are for.

pub(crate) mod shortage;

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process wants descriptors for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Those that are open, and those that are always needed.
    pub(crate) fixed: u64,
    /// How many connections there should be.
    pub(crate) connections: u64,
    /// How many descriptors each connection needs.
    pub(crate) per_connection: u64,
    /// How many jobs may run at once, if there are as many one day.
    pub(crate) jobs: u64,
    /// How many jobs there are now.
    pub(crate) known_jobs: u64,
    /// How many descriptors each job needs.
    pub(crate) per_job: u64,
}

/// What a limit on descriptors allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allotment {
    pub(crate) connections: u64,
    pub(crate) jobs: u64,
}

impl Needs {
    fn total(&self) -> u64 {
        let connections = self.connections.saturating_mul(self.per_connection);
        self.fixed.saturating_add(connections).saturating_add(self.jobs * self.per_job)
    }

    /// Shares out as many descriptors. If they are too few, the jobs that there are get theirs first, up to a half: they
    /// can wait for one another, and connections can make room for one another.
    fn share_out(&self, limit: u64) -> Allotment {
        let Needs { fixed, connections, per_connection, jobs, known_jobs, per_job } = *self;
        if limit >= self.total() {
            return Allotment { connections, jobs };
        }
        let free = limit.saturating_sub(fixed);
        let half = (free / 2).checked_div(per_job).unwrap_or(0);
        let jobs = known_jobs.min(jobs).min(half).max(known_jobs.min(1));
        let left = free.saturating_sub(jobs * per_job).checked_div(per_connection).unwrap_or(0);
        let connections = left.clamp(1, connections.max(1));
        Allotment { connections, jobs }
    }

    /// Raises the limit on descriptors as far as needed and permitted, and shares out what it allows. Also returns the
    /// limit, if that is too low.
    pub(crate) fn allot(&self) -> (Allotment, Option<u64>) {
        let needed = self.total();
        let limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|limit| limit < needed) {
            let raised = limit.maximum.map_or(needed, |hard| hard.min(needed));
            // If this fails, the limit is unchanged. It is read again below.
            let _ = setrlimit(
                Resource::Nofile,
                Rlimit { current: Some(raised), maximum: limit.maximum },
            );
        }
        let limit = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed);
        (self.share_out(limit.unwrap_or(needed)), limit)
    }
}

/// Returns how many descriptors are open; `None` if `/proc` does not say.
pub(crate) fn open() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One is that of the list.
    Some(listed.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_get_their_descriptors_before_connections_but_half_at_most() {
        let needs = Needs {
            fixed: 24,
            connections: 1024,
            per_connection: 1,
            jobs: 16,
            known_jobs: 16,
            per_job: 10,
        };
        let shared = |needs: &Needs, limit| {
            let Allotment { connections, jobs } = needs.share_out(limit);
            (connections, jobs)
        };
        assert_eq!(shared(&needs, 1 << 20), (1024, 16));
        assert_eq!(shared(&needs, 24 + 1024 + 160), (1024, 16));
        assert_eq!(shared(&needs, 24 + 1024 + 159), (1023, 16));
        assert_eq!(shared(&needs, 256), (122, 11));
        assert_eq!(shared(&needs, 64), (20, 2));
        assert_eq!(shared(&needs, 32), (1, 1));
        assert_eq!(shared(&needs, 3), (1, 1));
        let one_account = Needs { known_jobs: 1, ..needs };
        assert_eq!(shared(&one_account, 64), (30, 1));
        let gateway = Needs { per_connection: 2, ..needs };
        assert_eq!(shared(&gateway, 24 + 2048 + 160), (1024, 16));
        assert_eq!(shared(&gateway, 256), (61, 11));
        let reader = Needs { known_jobs: 0, ..needs };
        assert_eq!(shared(&reader, 64), (40, 0));
        assert_eq!(shared(&reader, 1 << 20), (1024, 16), "a reload may bring jobs");
    }

    #[test]
    fn an_opened_file_is_counted() {
        let Some(before) = open() else { return };
        let files: Vec<_> =
            (0..100).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
        // Other tests open and close some meanwhile.
        assert!(open().expect("it was there before") + 50 > before + files.len() as u64);
    }
}
