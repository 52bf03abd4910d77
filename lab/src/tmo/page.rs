//! Honest mode and paper mode as a page with plots.

use super::sweep::Sweep;
use super::table::{Curve, Line, sd_text};
use super::tether::honest::{NAMES, Outcome};
use std::collections::BTreeMap;
use tether_policies::tmo::paper::SENT;
use tether_report::bars::{self, Bar};
use tether_report::html;
use tether_report::plot::{Chart, Series};

/// `lines`: every policy under some budgets. `what` says what it was made from.
pub fn page(what: &str, honest: Option<&Outcome>, lines: &[Line], curves: &[Curve], sweep: &Sweep) -> String {
    let mut body = format!("<p>{}.</p>\n", html::escape(what));
    body.extend(honest.map(cross_fitted));
    body += "<h2>Paper mode</h2><p>The published environment with its faults: a policy is scored by the nearest-neighbour \
         estimator that it was trained on, so rewards here compare implementations, not policies in use. Rewards are \
         means per turn of a dialogue, then over test dialogues and splits. The optimum and the greedy policies query \
         the evaluating estimator: bounds, not competitors.</p>\n";
    for group in by_budget(lines) {
        body += &section(&group);
    }
    body += "<h2>Against each budget</h2>\n<div class=\"plots\">";
    body += &against(&sweep.latency, "seconds of a dialogue", |line| line.budget_s);
    body += &against(&sweep.usage, "USD of a dialogue", |line| line.budget_usd);
    body += "</div>\n<h2>Learning</h2>\n<div class=\"plots\">";
    body += &learning(curves);
    html::page("Local or cloud, and which views", &(body + "</div>\n"))
}

/// Every policy of honest mode with its interval, and how the budgets were kept.
fn cross_fitted(outcome: &Outcome) -> String {
    let bar = |(place, name): (usize, &&str)| {
        let (value, interval) = outcome.statistic(|means| means[place]);
        Bar { name: (*name).to_owned(), value, interval }
    };
    let bars: Vec<Bar> = NAMES.iter().enumerate().map(bar).collect();
    let cells = |(bar, response): (&Bar, f64)| {
        let interval = format!("{:.4} .. {:.4}", bar.interval[0], bar.interval[1]);
        vec![bar.name.clone(), format!("{:.4}", bar.value), interval, format!("{response:.4}")]
    };
    let rows: Vec<Vec<String>> = bars.iter().zip(outcome.responses()).map(cells).collect();
    let servable = outcome.played - outcome.unservable;
    format!(
        "<h2>Honest mode, cross-fitted</h2><p>What scores a policy never saw what trained it; random budgets in seconds, USD, \
         joules and bytes, {} dialogues, of which {} no sequence of actions can serve. The tether policy went over a budget \
         in {}, A2C without a mask in {} of the {servable} others. The optimum knows the coming turns and what scores \
         them.</p>{}<div class=\"plots\">{}</div>\n",
        outcome.played,
        outcome.unservable,
        outcome.over,
        outcome.unmasked_over,
        html::table(&["policy", "reward", "95 % of the mean", "answers' own score"], &rows),
        bars::values("Reward by policy, honest mode.", &bars)
    )
}

/// The lines of each budget, in the order of their appearance.
fn by_budget(lines: &[Line]) -> Vec<Vec<Line>> {
    let mut groups: Vec<Vec<Line>> = Vec::new();
    for line in lines {
        let same =
            |group: &&mut Vec<Line>| (group[0].budget_s, group[0].budget_usd) == (line.budget_s, line.budget_usd);
        match groups.iter_mut().find(same) {
            Some(group) => group.push(line.clone()),
            None => groups.push(vec![line.clone()]),
        }
    }
    groups
}

fn section(lines: &[Line]) -> String {
    let head = [
        "policy",
        "reward",
        "sd of splits",
        "95 % of the mean",
        "latency s",
        "USD",
        "over",
        "mean overshoot",
        "refused",
    ];
    let cells = |line: &Line| {
        vec![
            line.policy.clone(),
            format!("{:.3}", line.reward),
            sd_text(line.reward_sd),
            format!("{:.3} .. {:.3}", line.reward_low, line.reward_high),
            format!("{:.2}", line.latency_s),
            format!("{:.4}", line.usage_usd),
            format!("{:.1} %", 100.0 * line.over_ratio),
            format!("{:.1} %", 100.0 * line.overshoot_ratio),
            format!("{:.1} %", 100.0 * line.refused_ratio),
        ]
    };
    let bar = |line: &Line| Bar {
        name: line.policy.clone(),
        value: line.reward,
        interval: [line.reward_low, line.reward_high],
    };
    let names: Vec<String> = SENT.iter().map(|sent| action_name(*sent)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mix: Vec<(String, Vec<f64>)> = lines.iter().map(|line| (line.policy.clone(), line.actions.to_vec())).collect();
    format!(
        "<h2>{} s, {} USD a dialogue</h2>{}<div class=\"plots\">{}{}</div>\n",
        lines[0].budget_s,
        lines[0].budget_usd,
        html::table(&head, &lines.iter().map(cells).collect::<Vec<_>>()),
        bars::values("Reward by policy.", &lines.iter().map(bar).collect::<Vec<_>>()),
        bars::shares("Actions taken.", &names, &mix)
    )
}

fn action_name(sent: Option<tether_protocol::ViewSet>) -> String {
    match sent {
        None => "local".to_owned(),
        Some(views) if views.is_empty() => "cloud, text".to_owned(),
        Some(views) => {
            let list: Vec<String> = views.iter().map(|view| view.to_string()).collect();
            format!("{} {}", if list.len() == 1 { "view" } else { "views" }, list.join("+"))
        }
    }
}

/// Reward, and dialogues over a budget, against the budget that varies.
fn against(lines: &[Line], x_label: &str, x: impl Fn(&Line) -> f64) -> String {
    let series = |y: &dyn Fn(&Line) -> f64| {
        let mut series: Vec<Series> = Vec::new();
        for line in lines {
            let point = (x(line), y(line));
            match series.last_mut().filter(|series| series.name == line.policy) {
                Some(series) => series.points.push(point),
                None => series.push(Series { name: line.policy.clone(), points: vec![point] }),
            }
        }
        series
    };
    let chart = |title: String, y_label: &str, series| Chart {
        title,
        x_label: x_label.to_owned(),
        y_label: y_label.to_owned(),
        series,
        level: None,
    };
    let reward = chart(format!("Reward against {x_label}."), "reward", series(&|line| line.reward));
    let over = chart(
        format!("Dialogues over a budget against {x_label}."),
        "share of dialogues",
        series(&|line| line.over_ratio),
    );
    reward.html() + &over.html()
}

/// Mean over the splits of each policy's reward while it explored.
fn learning(curves: &[Curve]) -> String {
    /// Sum and count of the rewards at a number of steps.
    type Sums = BTreeMap<usize, (f64, f64)>;
    let mut sums: Vec<(String, Sums)> = Vec::new();
    for curve in curves {
        if sums.iter().all(|(name, _)| *name != curve.policy) {
            sums.push((curve.policy.clone(), BTreeMap::new()));
        }
        let Some((_, sums)) = sums.iter_mut().find(|(name, _)| *name == curve.policy) else { continue };
        for point in &curve.points {
            let (sum, count) = sums.entry(point.steps).or_default();
            *sum += point.reward;
            *count += 1.0;
        }
    }
    let mean = |(name, sums): (String, Sums)| Series {
        name,
        points: sums.into_iter().map(|(steps, (sum, count))| (steps as f64, sum / count)).collect(),
    };
    Chart {
        title: "Reward while learning, exploration included; mean over the splits.".to_owned(),
        x_label: "steps".to_owned(),
        y_label: "reward".to_owned(),
        series: sums.into_iter().map(mean).collect(),
        level: None,
    }
    .html()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::data::made_up;
    use crate::tmo::learned::{Algorithm, Handling, Plan};
    use crate::tmo::sweep::sweep;
    use crate::tmo::table::{BUDGETS, Study};
    use crate::tmo::tether::honest::Sums;

    #[test]
    fn every_policy_budget_and_curve_is_on_the_page() {
        let (data, splits) = made_up();
        let plans = [Plan { steps: 200, ..Plan::new(Algorithm::A2c, Handling::Journal, 0) }];
        let splits = &splits[..1];
        let study = Study {
            data: &data,
            splits,
            budgets: &BUDGETS,
            baselines: true,
            optima: false,
            plans: &plans,
            tether: &[],
        };
        let findings = study.run(&|_| {}).unwrap();
        let sweep = sweep(&data, splits, &plans, &[], false, &|_| {}).unwrap();
        let sums = |reward: f64| Sums { rewards: [reward; NAMES.len()], responses: [1.0; NAMES.len()], count: 2 };
        let by_dialogue = [(1, sums(2.0)), (2, sums(2.4))].into();
        let honest = Outcome { by_dialogue, played: 9, unservable: 5, unmasked_over: 3, ..Outcome::default() };
        let html = page("Made of <nothing>", Some(&honest), &findings.lines, &findings.curves, &sweep);
        assert_eq!(html.matches("<h2>").count(), 7);
        assert!(html.contains("documented rule, masked</td><td>1.1000") && html.contains("in 3 of the 4 others"));
        assert!(html.contains("&lt;nothing&gt;") && html.contains("views 0+1+2") && html.contains("task table"));
        // Two charts for each budget, one for learning, two of bars for each of three budgets, one of honest mode; one line
        // in the last.
        assert_eq!(html.matches("<figure>").count(), 4 + 1 + 6 + 1);
        assert!(html.rsplit("<figure>").next().unwrap().contains("RC-A2C (journal)"));
        assert!(!html.contains("NaN"));
    }
}
