//! Work on a thread of its own, for tasks of the event loop that must not wait for a disk.

use std::io;
use std::thread;

use tokio::sync::oneshot;

/// Runs `work` on a new thread, and returns its result. Unlike tokio's blocking threads, of which there are few, it does
/// not queue behind refreshes. Fails if there can be no more threads, or if `work` panics.
///
/// If the returned future is dropped, the thread ends its work all the same.
pub(crate) async fn run<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    let (sender, result) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        let _ = sender.send(work()); // Not received if the future was dropped.
    })?;
    result.await.map_err(|_| io::Error::other("a thread broke off by a fault in wxtoken itself"))
}
