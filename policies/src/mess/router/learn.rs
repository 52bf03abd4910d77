//! Learning: what answers cost, and what ratings teach.

use super::super::model::Model;
use super::super::pending::Pending;
use super::{Answer, LabelOutcome, RateError, Router};
use std::collections::HashSet;
use tether_protocol::limits::MAX_ZOO_MODELS;

impl Router {
    /// Tells what a model's answer to a turn cost. News of an unknown turn or a removed model is an error.
    pub fn answered(&mut self, turn: &str, model: &str, answer: Answer, now_ms: i64) -> Result<(), RateError> {
        if !(answer.cost.is_finite() && answer.cost >= 0.0) {
            return Err(RateError::Value { what: "the cost", range: "of at least 0" });
        }
        let (model, pending, entry) = self.asked(turn, model, now_ms)?;
        if std::mem::replace(&mut pending.asked[entry].answered, true) {
            return Ok(());
        }
        let length = match model.spec.price {
            Some(_) => answer.tokens.map_or(0.0, f64::from),
            None => answer.cost,
        };
        model.learn_cost(&pending.x, answer.cost, length);
        Ok(())
    }

    /// Learns a rating, 0 (not satisfied) to 1 (satisfied), of a model's answer to a turn of this tenant, once.
    pub fn rate(
        &mut self,
        tenant: &str,
        turn: &str,
        model: &str,
        satisfied: f64,
        now_ms: i64,
    ) -> Result<LabelOutcome, RateError> {
        if !(0.0..=1.0).contains(&satisfied) {
            return Err(RateError::Value { what: "a rating", range: "from 0 to 1" });
        }
        let params = self.params;
        let (learner, pending, entry) = self.asked(turn, model, now_ms)?;
        if pending.tenant != tenant {
            return Err(RateError::Foreign(turn.to_owned()));
        }
        if std::mem::replace(&mut pending.asked[entry].rated, true) {
            return Ok(LabelOutcome::Duplicate);
        }
        let asked = pending.asked[entry].clone();
        let weight = (1.0 / asked.propensity.max(1e-3)).min(f64::from(params.max_weight)) as f32;
        let changed = learner.learn_label(&pending.x, satisfied, weight, &params);
        if let Some(tenant) = self.tenants.peek_mut(tenant) {
            if asked.blind {
                tenant.guard.learn(asked.model, satisfied);
            }
            if asked.served {
                tenant.rate(satisfied, &params);
            }
        }
        if changed {
            self.tenants.values_mut().for_each(|tenant| tenant.guard.forget(asked.model));
        }
        Ok(LabelOutcome::Learned)
    }

    /// Learns a rating of the answer that was returned, for a caller that does not remember whose it was.
    pub fn rate_served(
        &mut self,
        tenant: &str,
        turn: &str,
        satisfied: f64,
        now_ms: i64,
    ) -> Result<LabelOutcome, RateError> {
        let unknown = || RateError::Unknown(turn.to_owned());
        let pending = self.pending.get_mut(turn, now_ms).ok_or_else(unknown)?;
        let served = pending.asked.iter().find(|asked| asked.served && asked.answered).map(|asked| asked.model);
        let model = self.models.iter().find(|model| Some(model.id) == served).ok_or_else(unknown)?;
        let name = model.spec.name.clone();
        self.rate(tenant, turn, &name, satisfied, now_ms)
    }

    /// Takes a decision back whose answer never came, so that the turn may be routed again and nobody can rate it.
    /// False, and nothing happens, if it is unknown or was answered.
    pub fn withdraw(&mut self, turn: &str) -> bool {
        let came = |pending: &Pending| pending.asked.iter().any(|asked| asked.answered);
        if self.pending.get(turn).is_none_or(came) {
            return false;
        }
        let Some(pending) = self.pending.remove(turn) else { return false };
        for asked in &pending.asked {
            if let Some(model) = self.models.iter_mut().find(|model| model.id == asked.model) {
                model.calls = model.calls.saturating_sub(1);
            }
        }
        if let Some(tenant) = self.tenants.peek_mut(&pending.tenant) {
            tenant.answered = tenant.answered.saturating_sub(1);
        }
        true
    }

    fn asked(&mut self, turn: &str, model: &str, now_ms: i64) -> Result<(&mut Model, &mut Pending, usize), RateError> {
        let not_asked = || RateError::NotAsked { turn: turn.to_owned(), model: model.to_owned() };
        let learner = self.models.iter_mut().find(|known| known.spec.name == model).ok_or_else(not_asked)?;
        let pending = self.pending.get_mut(turn, now_ms).ok_or_else(|| RateError::Unknown(turn.to_owned()))?;
        let entry = pending.asked.iter().position(|asked| asked.model == learner.id).ok_or_else(not_asked)?;
        Ok((learner, pending, entry))
    }

    /// Whether every number can be that of a router; what a loaded state is checked for.
    pub(in crate::mess) fn is_sound(&self) -> bool {
        let ids: HashSet<u32> = self.models.iter().map(|model| model.id).collect();
        !self.models.is_empty()
            && self.models.len() <= MAX_ZOO_MODELS
            && ids.len() == self.models.len()
            && ids.iter().all(|&id| id < self.next_id)
            && self.models.iter().all(|model| model.is_sound(self.width))
            && self.recent.is_sound(self.models.len())
            && self.pending.is_sound(self.width)
            && self.tenants.iter().all(|(_, tenant)| tenant.is_sound())
            && self.default_tenant.clone().checked().is_ok()
    }
}
