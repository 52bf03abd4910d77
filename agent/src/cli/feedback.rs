//! `tether feedback TURN RATING`

use super::{Global, output};
use clap::Args;
use std::io::Write;
use std::process::ExitCode;
use tether_protocol::api::{Feedback, FeedbackRequest, GatewayRating};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tether feedback 0199a1b2-... 1        it was right\n  tether feedback 0199a1b2-... good     the same\n  tether feedback 0199a1b2-... 0.25"
)]
pub(crate) struct FeedbackArgs {
    /// The turn's id, as `ask` and `turns` print it
    turn: String,
    /// 0 (useless) to 1 (right); `good` is 1 and `bad` is 0
    #[arg(value_parser = rating)]
    rating: f64,
}

pub(crate) fn rating(given: &str) -> Result<f64, String> {
    let rating = match given {
        "good" => 1.0,
        "bad" => 0.0,
        number => number.parse().map_err(|_| "write a number from 0 to 1, `good` or `bad`".to_owned())?,
    };
    if (0.0..=1.0).contains(&rating) { Ok(rating) } else { Err("a rating is from 0 to 1".into()) }
}

pub(crate) async fn run(args: FeedbackArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let request = FeedbackRequest { turn_id: args.turn, rating: args.rating };
    let feedback: Feedback = global.client()?.post("/v1/feedback", &request).await?;
    if global.json {
        output::json(&feedback)?;
        return Ok(ExitCode::SUCCESS);
    }
    let before = feedback.replaced.map(|old| format!(" (was {old})")).unwrap_or_default();
    let gateway = match feedback.gateway {
        None | Some(GatewayRating::Unsupported) => "",
        Some(GatewayRating::Recorded) => ", and the gateway learns from it",
        Some(GatewayRating::UnknownTurn) => "; the gateway does not know the turn (any more) and learns nothing",
        Some(GatewayRating::Unreachable) => "; the gateway did not reply and learns nothing",
    };
    writeln!(output::stdout(), "{} rated {}{before}{gateway}", feedback.turn_id, feedback.rating)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_stay_in_their_range() {
        assert_eq!([rating("good"), rating("bad"), rating("0.25")], [Ok(1.0), Ok(0.0), Ok(0.25)]);
        for bad in ["1.01", "-0.1", "NaN", "", "great"] {
            assert!(rating(bad).is_err(), "{bad}");
        }
    }
}
