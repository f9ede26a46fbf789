//! Errors that say that this host is short of descriptors, threads or memory, told apart from those of the network.

use std::io;

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::language::in_both;

/// What to do about it, in English and Chinese.
pub(crate) const SHORT_OF_RESOURCES: [&str; 2] = [
    "Raise ulimit -u and -n, or TasksMax= and LimitNOFILE= of the unit: this host is short of threads or descriptors.",
    "请调高 ulimit -u、-n，或 systemd 的 TasksMax=、LimitNOFILE=：本机线程数或文件描述符不足。",
];

/// Returns [`SHORT_OF_RESOURCES`] for a reader whose language is not known yet.
pub(crate) fn remedy() -> String {
    let [english, chinese] = SHORT_OF_RESOURCES;
    in_both(english, chinese)
}

/// Whether an error says that there are too few descriptors, or too little memory for another one.
pub(crate) fn is_shortage(err: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    Errno::from_io_error(err).is_some_and(|errno| shortages.contains(&errno))
}

/// Returns the error if there can be no further socket now. For what hides the cause of a failure, such as a resolver of
/// names.
pub(crate) fn of_sockets() -> Option<io::Error> {
    Socket::new(Domain::IPV4, Type::DGRAM, None).err().filter(is_shortage)
}

/// Returns the text of an error, with what to do if it is of a shortage.
pub(crate) fn explained(err: &io::Error) -> String {
    match is_shortage(err) {
        true => format!("{err}. {}", remedy()),
        false => err.to_string(),
    }
}
