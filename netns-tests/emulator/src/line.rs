//! A line: two directions, and the boxes at one of its ends.

use crate::middlebox::Middlebox;
use crate::profile::Profile;

/// What a link does: build it from [`Line::new`], add boxes with [`Line::with`].
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// One for each of [`Direction::BOTH`].
    pub profiles: [Profile; 2],
    /// The boxes, in order from the client to the router.
    pub middleboxes: Vec<Middlebox>,
    /// At which end of the line they stand.
    pub place: End,
}

impl Line {
    /// A line that does the same in both directions, without boxes.
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self { profiles: [profile; 2], middleboxes: Vec::new(), place: End::Router }
    }

    /// The same with one more box, nearer to the router than the others.
    #[must_use]
    pub fn with(mut self, middlebox: Middlebox) -> Self {
        self.middleboxes.push(middlebox);
        self
    }

    /// The same with all boxes at `place`.
    #[must_use]
    pub fn at(mut self, place: End) -> Self {
        self.place = place;
        self
    }
}

/// A direction over the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client side to the router.
    Out,
    /// From the router to the client side.
    In,
}

impl Direction {
    /// Both directions, in the order of their lanes.
    pub const BOTH: [Self; 2] = [Self::Out, Self::In];

    /// The lane's place in an array of both.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Out => 0,
            Self::In => 1,
        }
    }

    /// The other way.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }
}

/// An end of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Where the client is.
    Client,
    /// Where the router is.
    Router,
}

impl End {
    /// Whether a frame that goes in `direction` meets this end first.
    pub(crate) const fn is_first_for(self, direction: Direction) -> bool {
        matches!((self, direction), (Self::Client, Direction::Out) | (Self::Router, Direction::In))
    }
}
