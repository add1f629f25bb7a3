//! The state of one world as one member sees it.
//!
//! | news | in an active world | later |
//! |---|---|---|
//! | a member failed or aborted | breaks, one event with the rank | one event per further rank |
//! | a member left | one event | nothing |
//! | revoked by a member | revoked, one event | nothing |
//! | broken without a dead member | breaks, one event | nothing |

use crate::error::{Code, Error, Extent};
use std::collections::{BTreeMap, BTreeSet};

/// States, numbered as in the C API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Takes operations.
    Active = 0,
    /// A member failed, a deadline passed or calls did not match.
    Broken = 1,
    /// A member revoked it.
    Revoked = 2,
    /// This member aborted it.
    Aborted = 3,
    /// This member finalized it.
    Finalized = 4,
}

impl State {
    /// The state with this number.
    pub fn from_raw(raw: u8) -> State {
        match raw {
            0 => State::Active,
            2 => State::Revoked,
            3 => State::Aborted,
            4 => State::Finalized,
            _ => State::Broken,
        }
    }
}

/// Something learned about a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A member died, went silent, was cut off or aborted.
    Failed {
        /// Which.
        rank: u32,
        /// How that was noticed.
        reason: String,
    },
    /// A member finalized or destroyed its world.
    Left {
        /// Which.
        rank: u32,
    },
    /// A member revoked the world for everybody.
    Revoked {
        /// Which.
        by: u32,
    },
    /// The world cannot go on although nobody is dead.
    Broken {
        /// What every operation returns from now on.
        code: Code,
        /// Whose fault it is, if it is somebody's.
        culprit: Option<u32>,
        /// A sentence.
        text: String,
    },
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// See the C API.
    RankFailed(u32),
    /// See the C API.
    RankLeft(u32),
    /// See the C API.
    Revoked,
    /// See the C API.
    Broken,
}

/// What follows from a piece of news.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The world ends with this error.
    pub ends: Option<Error>,
    /// The application is told.
    pub notice: Option<Notice>,
    /// The sentence of the notice.
    pub reason: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Health {
    name: String,
    rank: u32,
    nranks: u32,
    state: State,
    /// With how it was noticed.
    failed: BTreeMap<u32, String>,
    left: BTreeSet<u32>,
    /// What ended it, if no member failed.
    cause: Option<News>,
    error: Option<Error>,
}

impl Health {
    /// An active world.
    pub fn new(name: &str, rank: u32, nranks: u32) -> Health {
        Health {
            name: name.to_string(),
            rank,
            nranks,
            state: State::Active,
            failed: BTreeMap::new(),
            left: BTreeSet::new(),
            cause: None,
            error: None,
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is not active.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Members known to have failed, ascending.
    pub fn failed(&self) -> Vec<u32> {
        self.failed.keys().copied().collect()
    }

    /// Members that have failed or left, ascending.
    pub fn gone(&self) -> BTreeSet<u32> {
        self.failed.keys().chain(&self.left).copied().collect()
    }

    /// Whether this member left.
    pub fn has_left(&self, rank: u32) -> bool {
        self.left.contains(&rank)
    }

    /// Takes in what a process says that has these ranks. Its word that a member has failed counts even if that member
    /// took its leave here: it died before it had told everybody, and all must agree on who has failed. But who has
    /// failed has no voice: who was cut off has lost all the others, and says so as soon as it is heard again, when they
    /// have only lost it.
    pub fn hear_from(&mut self, from: &[u32], news: &News) -> Verdict {
        if let News::Failed { rank, .. } = news {
            let has_failed = from.iter().all(|r| self.failed.contains_key(r));
            if has_failed && !from.contains(rank) {
                return Verdict::default();
            }
            self.left.remove(rank);
        }
        self.hear(news)
    }

    fn end(&mut self, state: State, error: Error) -> Option<Error> {
        if self.state != State::Active {
            return None;
        }
        self.state = state;
        self.error = Some(error.clone());
        Some(error)
    }

    /// Takes in a piece of news; what is no news changes nothing.
    pub fn hear(&mut self, news: &News) -> Verdict {
        let mut v = Verdict::default();
        match news {
            News::Failed { rank, reason } => {
                // Whoever left is free to die.
                if *rank >= self.nranks || self.left.contains(rank) || self.failed.contains_key(rank) {
                    return v;
                }
                self.failed.insert(*rank, reason.clone());
                v.reason = if *rank == self.rank {
                    format!("this rank ({rank}) of world '{}' was declared failed: {reason}", self.name)
                } else {
                    format!("rank {rank} of world '{}' failed: {reason}", self.name)
                };
                v.notice = Some(Notice::RankFailed(*rank));
                let e = Error::new(Code::Remote, Extent::World, v.reason.as_str()).by(*rank);
                v.ends = self.end(State::Broken, e);
            }
            News::Left { rank } => {
                if *rank >= self.nranks || self.failed.contains_key(rank) || !self.left.insert(*rank) {
                    return v;
                }
                v.reason = format!("rank {rank} left world '{}'", self.name);
                // Everybody leaves a world that has ended; that is no event.
                if self.state == State::Active {
                    v.notice = Some(Notice::RankLeft(*rank));
                }
            }
            News::Revoked { by } => {
                if *by >= self.nranks {
                    return v;
                }
                v.reason = format!("world '{}' was revoked by rank {by}", self.name);
                let e = Error::new(Code::Revoked, Extent::World, v.reason.as_str()).by(*by);
                v.ends = self.end(State::Revoked, e);
                self.cause.get_or_insert_with(|| news.clone());
                v.notice = v.ends.as_ref().map(|_| Notice::Revoked);
            }
            News::Broken { code, culprit, text } => {
                v.reason = text.clone();
                let mut e = Error::new(*code, Extent::World, text.as_str());
                e.culprit = culprit.filter(|c| *c < self.nranks);
                v.ends = self.end(State::Broken, e);
                self.cause.get_or_insert_with(|| news.clone());
                v.notice = v.ends.as_ref().map(|_| Notice::Broken);
            }
        }
        v
    }

    /// Takes in what this member found out about itself. What makes its whole process unusable says so here; the others
    /// only lose the world.
    pub fn hear_own(&mut self, news: &News, extent: Extent) -> Verdict {
        let mut v = self.hear(news);
        if extent == Extent::Process
            && let (Some(ends), Some(error)) = (&mut v.ends, &mut self.error)
        {
            ends.extent = extent;
            error.extent = extent;
        }
        v
    }

    /// This member aborts. Answers the error of what is pending here, and what the others have to hear: in an active
    /// world that this member fails, in one that has ended what it knows and that it leaves. A member that has not
    /// yet heard of a failure must not take those for the culprits who react to it.
    pub fn abort(&mut self) -> (Error, Vec<News>) {
        let text = format!("world '{}' was aborted by this rank", self.name);
        let e = Error::new(Code::Aborted, Extent::World, text);
        let news = if self.state == State::Active {
            vec![News::Failed { rank: self.rank, reason: "it aborted the world".into() }]
        } else {
            self.farewell()
        };
        self.end(State::Aborted, e.clone());
        self.state = State::Aborted;
        (e, news)
    }

    /// What the others have to hear from a member that leaves a world that has ended.
    pub fn farewell(&self) -> Vec<News> {
        let failed = self.failed.iter();
        let mut news: Vec<News> =
            failed.map(|(rank, reason)| News::Failed { rank: *rank, reason: reason.clone() }).collect();
        news.extend(self.cause.clone());
        news.push(News::Left { rank: self.rank });
        news
    }

    /// This member leaves. Answers false when the world had ended already.
    pub fn finalize(&mut self) -> bool {
        let text = format!("world '{}' has been finalized by this rank", self.name);
        self.end(State::Finalized, Error::new(Code::InvalidUsage, Extent::World, text)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(rank: u32) -> News {
        News::Failed { rank, reason: "its process died".into() }
    }

    #[test]
    fn who_is_unusable_itself_says_so_and_the_others_lose_the_world() {
        let news =
            News::Broken { code: Code::UnhandledCuda, culprit: Some(0), text: "it must restart".into() };
        let (mut own, mut other) = (Health::new("w", 0, 2), Health::new("w", 1, 2));
        assert_eq!(own.hear_own(&news, Extent::Process).ends.map(|e| e.extent), Some(Extent::Process));
        assert_eq!(other.hear_from(&[0], &news).ends.map(|e| e.extent), Some(Extent::World));
        assert_eq!(own.error().map(|e| e.extent), Some(Extent::Process));
        assert!(own.hear_own(&news, Extent::Process).ends.is_none());
    }

    #[test]
    fn a_failure_breaks_once_and_is_told_once_per_rank() {
        let mut h = Health::new("w", 0, 4);
        let v = h.hear(&failed(2));
        assert_eq!((v.notice, h.state()), (Some(Notice::RankFailed(2)), State::Broken));
        assert_eq!(v.ends.unwrap().culprit, Some(2));
        assert_eq!(h.hear(&failed(2)), Verdict::default());
        let v = h.hear(&failed(1));
        assert_eq!((v.notice, v.ends), (Some(Notice::RankFailed(1)), None));
        assert_eq!(h.failed(), [1, 2]);
        assert_eq!(h.error().unwrap().culprit, Some(2), "the first failure stays the reason");
        assert_eq!(h.hear(&failed(9)), Verdict::default(), "a rank that does not exist");
    }

    #[test]
    fn who_left_may_die_and_who_died_cannot_leave() {
        let mut h = Health::new("w", 0, 3);
        assert_eq!(h.hear(&News::Left { rank: 1 }).notice, Some(Notice::RankLeft(1)));
        assert_eq!(h.hear(&failed(1)), Verdict::default());
        assert_eq!(h.state(), State::Active);
        h.hear(&failed(2));
        assert_eq!(h.hear(&News::Left { rank: 2 }), Verdict::default());
    }

    #[test]
    fn who_died_while_leaving_has_failed_for_all() {
        let mut h = Health::new("w", 0, 3);
        h.hear(&News::Left { rank: 1 });
        assert_eq!(h.hear_from(&[2], &failed(1)).notice, Some(Notice::RankFailed(1)));
        assert_eq!((h.failed(), h.state()), (vec![1], State::Broken));
        assert_eq!(h.hear_from(&[2], &failed(1)), Verdict::default());
    }

    #[test]
    fn who_was_cut_off_has_no_voice() {
        let mut h = Health::new("w", 0, 4);
        h.hear(&failed(2));
        for others in [0, 1, 3] {
            assert_eq!(h.hear_from(&[2], &failed(others)), Verdict::default());
        }
        // One of a process's ranks has aborted; the process goes on.
        assert_eq!(h.hear_from(&[2, 3], &failed(1)).notice, Some(Notice::RankFailed(1)));
        assert_eq!(h.hear_from(&[3], &failed(3)).notice, Some(Notice::RankFailed(3)));
        assert_eq!(h.failed(), [1, 2, 3]);
    }

    #[test]
    fn the_first_end_wins() {
        let ends = [
            News::Revoked { by: 1 },
            News::Broken { code: Code::Timeout, culprit: Some(1), text: "late".into() },
            failed(1),
        ];
        for first in &ends {
            for second in &ends {
                let mut h = Health::new("w", 0, 2);
                let error = h.hear(first).ends;
                assert!(error.is_some());
                assert!(h.hear(second).ends.is_none());
                assert_eq!(h.error(), error.as_ref());
                assert!(!h.finalize());
            }
        }
    }

    #[test]
    fn aborting_a_broken_world_blames_who_broke_it() {
        let mut h = Health::new("w", 0, 3);
        assert_eq!(h.abort().1, [News::Failed { rank: 0, reason: "it aborted the world".into() }]);
        assert_eq!(h.state(), State::Aborted);
        let mut h = Health::new("w", 0, 3);
        h.hear(&failed(1));
        assert_eq!(h.abort().1, [failed(1), News::Left { rank: 0 }]);
        // The other survivor hears that, and the death only afterwards.
        let mut other = Health::new("w", 2, 3);
        assert_eq!(other.hear(&failed(1)).notice, Some(Notice::RankFailed(1)));
        assert_eq!(
            other.hear(&News::Left { rank: 0 }),
            Verdict { reason: "rank 0 left world 'w'".into(), ..Verdict::default() }
        );
        assert_eq!(other.hear(&failed(1)), Verdict::default());
        assert_eq!(other.failed(), [1]);
    }
}
