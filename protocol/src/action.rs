//! The action space of TMO (arXiv 2502.11007, section 3): answer locally, or offload with a subset of the views.
//!
//! With X named views there are 1 + 2^X actions: `0` is local, `1 + i` is the cloud with the i-th subset of the
//! views, subsets in (size, lexicographic) order, the empty subset first; the dialogue's text always travels with a
//! cloud turn. X = 3 gives the paper's nine actions.

use crate::id::ViewName;
use crate::limits::MAX_VIEWS;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where an answer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    Local,
    Cloud,
}

impl Route {
    pub fn as_str(self) -> &'static str {
        match self {
            Route::Local => "local",
            Route::Cloud => "cloud",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of views: bit v stands for the v-th named view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ViewSet(pub u8);

impl ViewSet {
    pub const EMPTY: ViewSet = ViewSet(0);

    pub fn contains(self, view: usize) -> bool {
        view < MAX_VIEWS && self.0 & (1 << view) != 0
    }

    #[must_use]
    pub fn with(self, view: usize) -> Self {
        assert!(view < MAX_VIEWS, "view {view} is beyond the limit of {MAX_VIEWS}");
        ViewSet(self.0 | 1 << view)
    }

    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn is_subset_of(self, other: ViewSet) -> bool {
        self.0 & !other.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MAX_VIEWS).filter(move |&view| self.contains(view))
    }
}

/// An index into an [`ActionSpace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Action(pub u16);

impl Action {
    pub const LOCAL: Action = Action(0);

    pub fn route(self) -> Route {
        if self == Self::LOCAL { Route::Local } else { Route::Cloud }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionSpaceError {
    #[error("{given} views are configured, at most {MAX_VIEWS} are allowed")]
    TooManyViews { given: usize },
    #[error("view {name} is configured twice")]
    DuplicateView { name: ViewName },
}

/// The named views of a device and the actions they give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionSpace {
    views: Vec<ViewName>,
    /// subsets[i] belongs to action 1 + i.
    subsets: Vec<ViewSet>,
    /// The inverse: position[bits] is the i of the subset with these bits.
    positions: Vec<u16>,
}

impl ActionSpace {
    pub fn new(views: Vec<ViewName>) -> Result<Self, ActionSpaceError> {
        if views.len() > MAX_VIEWS {
            return Err(ActionSpaceError::TooManyViews { given: views.len() });
        }
        if let Some(twice) = views.iter().enumerate().find(|(i, name)| views[..*i].contains(name)) {
            return Err(ActionSpaceError::DuplicateView { name: twice.1.clone() });
        }
        let mut subsets: Vec<ViewSet> = (0..1u16 << views.len()).map(|bits| ViewSet(bits as u8)).collect();
        // Lexicographic over the sorted member lists: {0,1} < {0,2} < {1,2}.
        subsets.sort_by_key(|set| (set.len(), set.iter().collect::<Vec<_>>()));
        let mut positions = vec![0; subsets.len()];
        for (i, set) in subsets.iter().enumerate() {
            positions[set.0 as usize] = i as u16;
        }
        Ok(Self { views, subsets, positions })
    }

    pub fn views(&self) -> &[ViewName] {
        &self.views
    }

    pub fn view_index(&self, name: &str) -> Option<usize> {
        self.views.iter().position(|view| view.as_str() == name)
    }

    /// How many actions there are: 1 + 2^X.
    pub fn action_count(&self) -> usize {
        1 + self.subsets.len()
    }

    pub fn actions(&self) -> impl Iterator<Item = Action> + use<> {
        (0..self.action_count() as u16).map(Action)
    }

    /// The views that travel with an action; empty for local.
    ///
    /// # Panics
    /// If the action is not of this space.
    pub fn sent(&self, action: Action) -> ViewSet {
        match action {
            Action::LOCAL => ViewSet::EMPTY,
            Action(number) => self.subsets[number as usize - 1],
        }
    }

    /// The cloud action that sends exactly these views.
    ///
    /// # Panics
    /// If the set names a view that this space does not have.
    pub fn cloud(&self, views: ViewSet) -> Action {
        Action(1 + self.positions[views.0 as usize])
    }

    pub fn names(&self, views: ViewSet) -> Vec<ViewName> {
        views.iter().filter_map(|view| self.views.get(view).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(views: usize) -> ActionSpace {
        ActionSpace::new((0..views).map(|v| ViewName::new(format!("view{v}")).unwrap()).collect()).unwrap()
    }

    #[test]
    fn three_views_give_the_nine_actions_of_the_paper() {
        let space = space(3);
        let sent: Vec<Vec<usize>> = space.actions().map(|a| space.sent(a).iter().collect()).collect();
        let expected: [&[usize]; 9] = [&[], &[], &[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
        assert_eq!(sent, expected);
    }

    #[test]
    fn every_size_round_trips() {
        for views in 0..=MAX_VIEWS {
            let space = space(views);
            assert_eq!(space.action_count(), 1 + (1 << views));
            for action in space.actions().skip(1) {
                assert_eq!(space.cloud(space.sent(action)), action);
            }
        }
    }

    #[test]
    fn too_many_and_duplicate_views_are_refused() {
        let name = |text: &str| ViewName::new(text).unwrap();
        let nine = (0..9).map(|v| name(&format!("v{v}"))).collect();
        assert_eq!(ActionSpace::new(nine), Err(ActionSpaceError::TooManyViews { given: 9 }));
        assert!(matches!(ActionSpace::new(vec![name("a"), name("a")]), Err(ActionSpaceError::DuplicateView { .. })));
    }
}
