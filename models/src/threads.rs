//! How many threads candle computes with. Candle has one pool for the whole process, which reads its size from the
//! environment once; so a program that wants another size starts itself again, before it owns anything.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable that candle reads.
pub const THREADS_VARIABLE: &str = "CANDLE_NUM_THREADS";

/// Makes candle compute with `threads` threads; `None` leaves candle's own choice (or the variable's). If the size is
/// another one now, this replaces the running program by itself with the variable set: same process id, same inherited
/// sockets. Call it before threads, sockets or files are opened.
///
/// # Errors
/// If the program cannot be started again.
pub fn apply(threads: Option<usize>) -> std::io::Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    let wanted = threads.to_string();
    if std::env::var(THREADS_VARIABLE).is_ok_and(|current| current == wanted) {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env(THREADS_VARIABLE, wanted).exec())
}
