//! SIGKILL at random moments under load. `make bench-budgets` does it two hundred times.

use anyhow::{Result, ensure};
use tether_tests::kill::kill_and_count;
use tether_tests::system::folder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_loses_no_settled_turn_and_counts_none_twice() -> Result<()> {
    let folder = folder()?;
    let tally = kill_and_count(folder.path(), 12, 0x7e74e4).await?;
    println!("{tally:?}");
    ensure!(tally.answered > 20 && tally.cut_off > 5, "too little happened to say anything: {tally:?}");
    Ok(())
}
