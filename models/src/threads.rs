//! How many threads a model computes with. Ours are each engine's own; candle has one pool for the whole process, which
//! reads its size from the environment once, so where candle computes, a program that wants another size starts itself
//! again, before it owns anything.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that candle reads; ours take their number from it too, if nothing else names one.
pub const THREADS_VARIABLE: &str = "CANDLE_NUM_THREADS";

/// Threads of an engine whose options name none: the variable's, else one for each processor that this process may use.
pub fn default() -> usize {
    let named = std::env::var(THREADS_VARIABLE).ok().and_then(|value| value.parse().ok());
    named.filter(|&threads| threads > 0).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Where candle computes (not on x86-64), makes it do so with `threads` threads; `None` leaves candle's own choice (or the
/// variable's). If the size is another one now, this replaces the running program by itself with the variable set: same
/// process id, same inherited sockets. Call it before threads, sockets or files are opened.
///
/// # Errors
/// If the program cannot be started again.
pub fn apply(threads: Option<usize>) -> std::io::Result<()> {
    let Some(threads) = threads.filter(|_| cfg!(not(target_arch = "x86_64"))) else { return Ok(()) };
    let wanted = threads.to_string();
    if std::env::var(THREADS_VARIABLE).is_ok_and(|current| current == wanted) {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(THREADS_VARIABLE, wanted).exec())
}
