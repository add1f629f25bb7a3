//! Ranks of a test and what they answer.

use crate::common::{Rank, doubles, store_address};

/// What a rank answered to a command.
#[derive(Debug)]
pub struct Answer {
    /// `Ok` or an error's name.
    pub code: String,
    /// How long it took.
    pub ms: u64,
    /// The extent of an error and its sentence, or what a success says.
    pub text: String,
}

impl Answer {
    fn parse(line: &str) -> Answer {
        let mut words = line.splitn(3, ' ');
        let code = words.next().unwrap_or_default().to_string();
        let ms = words.next().and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("no answer: {line}"));
        Answer { code, ms, text: words.next().unwrap_or_default().to_string() }
    }

    /// It is this, and says all of that.
    pub fn is(&self, code: &str, says: &[&str]) -> &Answer {
        assert!(
            self.code == code && says.iter().all(|s| self.text.contains(s)),
            "{self:?}, not {code} {says:?}"
        );
        self
    }

    /// It took at most so long.
    pub fn within(&self, ms: u64) -> &Answer {
        assert!(self.ms <= ms, "{self:?} took longer than {ms} ms");
        self
    }
}

/// The ranks of a test, as processes over the doubles.
pub struct Cast {
    pub ranks: Vec<Rank>,
    store: String,
    env: Vec<(String, String)>,
}

impl Cast {
    /// Starts `n` processes with these settings besides.
    pub fn new(n: usize, env: &[(&str, &str)]) -> Cast {
        let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut cast = Cast { ranks: Vec::new(), store: store_address(), env };
        (0..n).for_each(|_| cast.add(&[]));
        cast
    }

    /// One more.
    pub fn add(&mut self, extra: &[(&str, &str)]) {
        let d = doubles::get();
        let (folder, nccl) = (d.folder.to_string_lossy(), d.nccl.to_string_lossy());
        let ours = [
            ("LD_LIBRARY_PATH", &*folder),
            ("MW_NCCL_LIB", &*nccl),
            ("MW_BACKEND", "nccl"),
            ("MW_STORE", &*self.store),
            ("MW_TIMEOUT_MS", "30000"),
            ("MW_JOIN_TIMEOUT_MS", "30000"),
            ("MW_NCCL_ABORT_TIMEOUT_MS", "600"),
            ("MW_DEBUG", "warn"),
        ];
        let env: Vec<(&str, &str)> = self.env.iter().map(|(k, v)| (&**k, &**v)).collect();
        let mut rank = Rank::start("rank", "actor", &[], &[&ours[..], &env, extra].concat());
        assert_eq!(rank.hear_of("actor"), "ready");
        self.ranks.push(rank);
    }

    /// Joined processes of one world of all of them, named `w`.
    pub fn joined(n: usize, env: &[(&str, &str)]) -> Cast {
        let mut cast = Cast::new(n, env);
        cast.world("w", &(0..n).collect::<Vec<_>>());
        cast
    }

    /// A world of some.
    pub fn world(&mut self, name: &str, of: &[usize]) {
        for (rank, at) in of.iter().enumerate() {
            self.ranks[*at].tell(&format!("join {name} {} {rank}", of.len()));
        }
        of.iter().for_each(|at| {
            self.hear(*at, name).is("Ok", &[]);
        });
    }

    /// Tells one, without waiting for its answer.
    pub fn tell(&mut self, at: usize, line: &str) {
        self.ranks[at].tell(line);
    }

    /// The next answer of one about a topic.
    pub fn hear(&mut self, at: usize, topic: &str) -> Answer {
        Answer::parse(&self.ranks[at].hear_of(topic))
    }

    /// Tells one and waits for its answer.
    pub fn ask(&mut self, at: usize, line: &str) -> Answer {
        self.tell(at, line);
        let topic = line.split(' ').nth(1).expect("a topic");
        self.hear(at, topic)
    }

    /// Tells all and waits for all.
    pub fn ask_all(&mut self, line: &str) -> Vec<Answer> {
        (0..self.ranks.len()).for_each(|at| self.tell(at, line));
        let topic = line.split(' ').nth(1).expect("a topic");
        (0..self.ranks.len()).map(|at| self.hear(at, topic)).collect()
    }

    /// All say this.
    pub fn all(&mut self, line: &str, code: &str, says: &[&str]) -> Vec<Answer> {
        let answers = self.ask_all(line);
        answers.iter().for_each(|a| {
            a.is(code, says);
        });
        answers
    }

    /// The end of all that are left: nobody has broken a rule of NCCL.
    pub fn finish(self) {
        for mut rank in self.ranks {
            rank.tell("end");
            let said = rank.hear_of("violations");
            assert!(said == "0" || said.starts_with("0 "), "violations of NCCL's rules: {said}");
            rank.finish();
        }
    }
}
