//! Guessing what comes next from what was said before ("prompt lookup"): where the newest tokens occurred earlier in
//! the prompt or the answer, what followed them there is likely to follow again. Answers that quote, list or repeat
//! gain; others have nothing to guess from. A guess is only ever compared with what is drawn, so it cannot change an
//! answer; it costs time when it is wrong, so it is given up for a while where it does not pay. No I/O; times are
//! arguments.
//!
//! Source: prompt lookup decoding (A. Saxena, 2023), which is speculative decoding (Leviathan et al., 2023) with the
//! text itself in place of a draft model.

use std::time::Duration;

/// The newest tokens must have occurred before at least at this length; shorter ones are mostly chance.
const MIN_MATCH: usize = 3;
/// A longer match is not preferred to a later one.
const MAX_MATCH: usize = 8;
/// Tokens guessed at first, and at most and at least later. A pass over a few tokens takes little longer than over one, because
/// both read all weights; with more of them the multiplications begin to count.
const FIRST_LENGTH: usize = 4;
const MAX_LENGTH: usize = 8;
const MIN_LENGTH: usize = 2;
/// Guesses after which it is judged whether they pay.
const TRIALS: usize = 3;
/// Tokens without a guess after guesses that did not pay; doubled each time that they do not again.
const FIRST_PAUSE: usize = 32;
const MAX_PAUSE: usize = 512;
/// What an older measurement counts for after each newer one.
const MEMORY: f64 = 0.8;

/// When to guess, and how far.
#[derive(Debug)]
pub(crate) struct Speculation {
    length: usize,
    trials: usize,
    /// Tokens to draw until the next guess.
    pause: usize,
    next_pause: usize,
    plain: TokenTime,
    guessed: TokenTime,
}

/// Mean time of a token.
#[derive(Debug, Clone, Copy, Default)]
struct TokenTime {
    tokens: f64,
    seconds: f64,
}

impl Default for Speculation {
    fn default() -> Self {
        Self {
            length: FIRST_LENGTH,
            trials: 0,
            pause: 0,
            next_pause: FIRST_PAUSE,
            plain: TokenTime::default(),
            guessed: TokenTime::default(),
        }
    }
}

impl Speculation {
    /// What may follow `tokens`, at most `room` of them; empty if nothing is guessed.
    pub(crate) fn draft(&self, tokens: &[u32], room: usize) -> Vec<u32> {
        if self.pause > 0 || room == 0 {
            return Vec::new();
        }
        let found = lookup(tokens).unwrap_or_default();
        found[..found.len().min(self.length).min(room)].to_vec()
    }

    /// A token was drawn without a guess, in this time.
    pub(crate) fn drew(&mut self, time: Duration) {
        self.pause = self.pause.saturating_sub(1);
        self.plain.add(1, time);
    }

    /// A guess was computed and compared: `accepted` of its `drafted` tokens were drawn, and one more, in this time.
    pub(crate) fn ended(&mut self, drafted: usize, accepted: usize, time: Duration) {
        self.trials += 1;
        self.guessed.add(accepted + 1, time);
        if accepted == drafted {
            self.length = (self.length * 2).min(MAX_LENGTH);
        } else if accepted * 2 < drafted {
            self.length = (self.length / 2).max(MIN_LENGTH);
        }
        if self.trials < TRIALS {
            return;
        }
        match (self.guessed.mean_s(), self.plain.mean_s()) {
            (Some(guessed), Some(plain)) if guessed > plain => self.give_up(),
            (Some(_), Some(_)) => self.next_pause = FIRST_PAUSE,
            // Nothing to compare with yet.
            _ => {}
        }
    }

    fn give_up(&mut self) {
        self.pause = self.next_pause;
        self.next_pause = (self.next_pause * 2).min(MAX_PAUSE);
        (self.trials, self.length, self.guessed) = (0, FIRST_LENGTH, TokenTime::default());
    }
}

impl TokenTime {
    fn add(&mut self, tokens: usize, time: Duration) {
        self.tokens = self.tokens * MEMORY + tokens as f64;
        self.seconds = self.seconds * MEMORY + time.as_secs_f64();
    }

    fn mean_s(self) -> Option<f64> {
        (self.tokens > 0.0).then(|| self.seconds / self.tokens)
    }
}

/// What followed where the end of `tokens` occurred before: after the longest match, the latest among equals.
fn lookup(tokens: &[u32]) -> Option<&[u32]> {
    let last = *tokens.last()?;
    let (mut best, mut following) = (MIN_MATCH - 1, None);
    for end in (MIN_MATCH..tokens.len()).rev() {
        if tokens[end - 1] != last {
            continue;
        }
        let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev());
        let matched = pairs.take(MAX_MATCH).take_while(|(a, b)| a == b).count();
        if matched > best {
            (best, following) = (matched, Some(&tokens[end..]));
        }
        if best == MAX_MATCH {
            break;
        }
    }
    following
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_longest_match_is_followed_and_the_latest_among_equals() {
        assert_eq!(lookup(&[]), None);
        assert_eq!(lookup(&[1, 2, 3, 4]), None);
        // Two tokens are not enough.
        assert_eq!(lookup(&[1, 2, 7, 1, 2]), None);
        assert_eq!(lookup(&[1, 2, 3, 7, 8, 1, 2, 3]), Some(&[7, 8, 1, 2, 3][..]));
        // 4 before 1 2 3 makes the earlier one longer.
        assert_eq!(lookup(&[4, 1, 2, 3, 7, 0, 1, 2, 3, 8, 4, 1, 2, 3]).unwrap()[0], 7);
        assert_eq!(lookup(&[1, 2, 3, 7, 0, 1, 2, 3, 8, 0, 5, 1, 2, 3]).unwrap()[0], 8);
        // A run of one token goes on.
        assert_eq!(lookup(&[9, 9, 9, 9]), Some(&[9][..]));
    }

    #[test]
    fn a_guess_fits_the_room() {
        let speculation = Speculation::default();
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3];
        assert_eq!(speculation.draft(&tokens, 100), [4, 5, 6, 7]);
        assert_eq!(speculation.draft(&tokens, 2), [4, 5]);
        assert!(speculation.draft(&tokens, 0).is_empty());
    }

    #[test]
    fn guesses_that_cost_more_than_they_bring_are_given_up_for_longer_each_time() {
        let tokens = [1, 2, 3, 4, 5, 1, 2, 3];
        let mut speculation = Speculation::default();
        speculation.drew(10 * MS);
        for pause in [32, 64, 128, 256, 512, 512] {
            for _ in 0..TRIALS {
                assert!(!speculation.draft(&tokens, 8).is_empty());
                speculation.ended(4, 0, 15 * MS);
            }
            for left in 0..pause {
                assert!(speculation.draft(&tokens, 8).is_empty(), "{left} of {pause}");
                speculation.drew(10 * MS);
            }
        }
    }

    #[test]
    fn guesses_that_pay_get_longer_and_go_on() {
        let tokens: Vec<u32> = (0..20).chain(0..5).collect();
        let mut speculation = Speculation::default();
        speculation.drew(10 * MS);
        for _ in 0..50 {
            let drafted = speculation.draft(&tokens, 100).len();
            speculation.ended(drafted, drafted, 15 * MS);
        }
        assert_eq!(speculation.draft(&tokens, 100).len(), MAX_LENGTH);
        // A few that fail shorten them, and a mean that is still good keeps them.
        speculation.ended(8, 0, 15 * MS);
        assert_eq!(speculation.draft(&tokens, 100).len(), 4);
    }
}
