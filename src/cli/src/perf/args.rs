//! The arguments of `mw perf`, and its manual.

use super::exercise::Post;
use super::op::Op;
use super::size;
use clap::ValueEnum;
use multiworld::types::{DataType, RedOp};
use std::path::PathBuf;
use std::time::Duration;

/// Measures worlds: latency, bandwidth, every collective
///
/// Calls the C functions of the library as an application does, over and over, and prints how long they took, in
/// the manner of nccl-tests. With -n it starts the ranks itself, on this machine; without, it is one rank of a
/// world: start it once per rank with MW_RANK, MW_NRANKS and MW_STORE set (or under torchrun, mpirun or srun).
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = MANUAL, override_usage = "mw perf [OPTIONS] <OP>...")]
pub struct Args {
    /// What to measure, in this order; `all` is everything
    #[arg(required_unless_present = "tune", value_name = "OP", value_parser = OpParser)]
    pub ops: Vec<OpChoice>,

    /// Start that many ranks as processes of this machine; when one dies all are ended
    #[arg(short = 'n', long, value_name = "RANKS", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub ranks: Vec<u32>,

    /// Bind each rank to a processor of its own, unless there are more ranks than processors
    #[arg(long, requires = "ranks")]
    pub pin: bool,

    /// Smallest size in bytes, with K, M or G for powers of 1024 [default: 8]
    #[arg(short = 'b', long = "min", value_name = "SIZE", value_parser = size::parse)]
    pub min: Option<u64>,

    /// Largest size [default: 16M]
    #[arg(short = 'e', long = "max", value_name = "SIZE", value_parser = size::parse)]
    pub max: Option<u64>,

    /// From one size to the next [default: 8]
    #[arg(short = 'f', long, value_parser = clap::value_parser!(u64).range(2..))]
    pub factor: Option<u64>,

    /// These sizes, in place of a range: 8,4096,40000
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', value_parser = size::parse,
          conflicts_with_all = ["min", "max", "factor"])]
    pub sizes: Vec<u64>,

    /// Data type
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "float32", value_parser = datatype)]
    pub datatype: DataType,

    /// Reduction: sum, prod, max, min or avg
    #[arg(short = 'o', long = "op", value_name = "REDOP", default_value = "sum", value_parser = redop)]
    pub redop: RedOp,

    /// Root of broadcast, reduce, gather and scatter
    #[arg(short = 'r', long, value_name = "RANK", default_value_t = 0)]
    pub root: u32,

    /// Send and receive buffer are the same
    #[arg(long)]
    pub in_place: bool,

    /// They are not (default; with --in-place, both are measured)
    #[arg(long)]
    pub out_of_place: bool,

    /// Iterations before each measurement, besides the trial run of one by time
    #[arg(short = 'w', long, value_name = "N")]
    pub warmup: Option<u32>,

    /// Iterations of each measurement
    #[arg(short = 'i', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
          conflicts_with = "seconds")]
    pub iterations: Option<u32>,

    /// Time of each measurement; a trial run tells how many iterations that is
    #[arg(long, value_parser = seconds)]
    pub seconds: Option<Duration>,

    /// Compare what arrives with what should, in iterations that are not timed
    #[arg(short = 'c', long)]
    pub check: bool,

    /// MW_TRANSPORT
    #[arg(long, value_enum)]
    pub transport: Option<Transport>,

    /// MW_BACKEND
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,

    /// Join that many worlds with the same ranks; those without traffic are idle
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub worlds: u32,

    /// How many of them have traffic, in turn
    #[arg(long, value_name = "A", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub active: u32,

    /// Where buffers come from
    #[arg(long, value_enum, default_value_t)]
    pub buffers: BufferKind,

    /// How bw and bwd post a window
    #[arg(long, value_enum, default_value_t)]
    pub post: Post,

    /// Name of the world, for ranks that are started by somebody else
    #[arg(long, default_value = "mw-perf")]
    pub name: String,

    /// Find out where one algorithm should take over from another with -n ranks (2,4,8: each of these), and write
    /// that to FILE for MW_TUNING; takes minutes
    #[arg(long, value_name = "FILE", requires = "ranks", conflicts_with_all = ["ops", "min", "max", "factor", "sizes",
          "datatype", "redop", "root", "in_place", "out_of_place", "warmup", "iterations", "seconds", "check",
          "backend", "worlds", "active", "buffers", "post", "name", "Output"])]
    pub tune: Option<PathBuf>,

    /// With --tune: fewer sizes and less time, for a first look
    #[arg(long, requires = "tune")]
    pub quick: bool,

    #[command(flatten)]
    pub output: Output,
}

/// What comes out; a table without any of these.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(multiple = false)]
pub struct Output {
    /// One JSON object at the end
    #[arg(long)]
    pub json: bool,

    /// Comma-separated values with a header line
    #[arg(long)]
    pub csv: bool,

    /// Lines `RESULT <op> <size> <value> <unit>` for comparisons with other libraries; see below
    #[arg(long)]
    pub results: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Shared memory inside a machine, else TCP
    Auto,
    /// Shared memory only
    Shm,
    /// TCP only
    Tcp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Memory of the host
    #[default]
    Host,
    /// Memory of GPUs, through NCCL
    Nccl,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BufferKind {
    /// The caller's
    #[default]
    Plain,
    /// From mwMemAlloc
    Registered,
}

/// An operation, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpChoice {
    One(Op),
    All,
}

/// Reads operations, so that a wrong one is answered with the list.
#[derive(Clone)]
struct OpParser;

impl clap::builder::TypedValueParser for OpParser {
    type Value = OpChoice;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<OpChoice, clap::Error> {
        if value == "all" {
            return Ok(OpChoice::All);
        }
        let known = clap::builder::PossibleValuesParser::new(self.possible_values().into_iter().flatten());
        let name = known.parse_ref(command, arg, value)?;
        Op::from_str(&name, false)
            .map(OpChoice::One)
            .map_err(|text| clap::Error::raw(clap::error::ErrorKind::InvalidValue, text).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        let ops = Op::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        Some(Box::new(ops.chain([clap::builder::PossibleValue::new("all").help("All of them")])))
    }
}

fn datatype(text: &str) -> Result<DataType, String> {
    let name = match text {
        "char" => "int8",
        "int" => "int32",
        "half" | "fp16" => "float16",
        "float" => "float32",
        "double" => "float64",
        "bf16" => "bfloat16",
        "fp8_e4m3" => "float8e4m3",
        "fp8_e5m2" => "float8e5m2",
        other => other,
    };
    let names = || DataType::ALL.map(DataType::name).join(", ");
    let found = DataType::ALL.into_iter().find(|datatype| datatype.name() == name);
    found.ok_or_else(|| format!("the data types are {}", names()))
}

fn redop(text: &str) -> Result<RedOp, String> {
    let found = RedOp::ALL.into_iter().find(|redop| redop.name() == text);
    found.ok_or_else(|| format!("the reductions are {}", RedOp::ALL.map(RedOp::name).join(", ")))
}

/// A positive time.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(time) if !time.is_zero() && number <= 86400.0 => Ok(time),
        _ => Err("more than 0 and at most 86400 seconds are wanted".to_owned()),
    }
}

const MANUAL: &str = "\
Sizes are those of nccl-tests: the bytes of one message or vector; for all_gather, reduce_scatter, all_to_all,
gather and scatter those of all ranks' parts together. What does not come out even is rounded down, to one element
at least. Without -b, -e, -f, --sizes: 8 B to 16 MiB by a factor of 8.

Columns:
  size     bytes that were really moved, as above
  count    elements in one call
  time     microseconds of one iteration on average: of one operation; for sendrecv half of a round trip; for bw and
           bwd a window with its answer. Of a collective that of the slowest rank, and what follows is that rank's.
  min, median, p99
           of the single iterations
  algbw    size / time in GB/s (1e9), of bw and bwd that of all messages of a window
  busbw    algbw times nccl-tests' factor, which makes it comparable to the speed of the hardware for any number of
           ranks: 2(n-1)/n for all_reduce, (n-1)/n for all_gather, reduce_scatter, all_to_all, gather and scatter
  #wrong   elements that were not what they should be; N/A without --check

With --check every rank fills its buffers with numbers that depend on rank, position and iteration and compares all
that it receives. If anything is wrong the exit status is 1.

On the nccl backend the buffers are on GPU number rank modulo their number. In the table, every iteration waits for
its stream; with --results only the whole loop does.

RESULT lines: the sizes are 8, 4096, 40000, 400000, 4000000 and 64000000 bytes, of bwd the last three, unless sizes
are given; the size in the line is the one that was asked for. lat and the collectives are in us, bw and bwd in MB/s
(1e6). The loop is timed as a whole, the slowest rank's average counts. The number of iterations fits into BUDGET
seconds (environment, default 0.5), is bounded by what the comparison has agreed upon, and divided by ITDIV.

Ranks that mw starts meet on the loopback interface, which they use for TCP, too, unless MW_IFNAME names another.
All other settings of the library (MW_*) count as always.

--tune compares algorithms, each in a world of its own beside the others, from 256 B to 8 MiB (with --quick from 1 KiB to
1 MiB), and writes a table with a section for each number of ranks: the first for exactly this number, each other one
for as many as that and fewer. Without --transport tcp it is about worlds that share memory; with it, about those
connected by a network, as far as loopback (or MW_IFNAME) is like one. Each line has a comment with what was measured;
what is built in stays where nothing is faster by 3 %. The file appears when all is measured. Several files can be joined
into one, as long as no section occurs twice.

Exit status: 0; 1 when a call failed, a rank died, or something was wrong; 2 for wrong arguments.

Examples:
  mw perf -n 2 sendrecv bw
  mw perf -n 4 --check -b 8 -e 64M -f 2 all_reduce
  mw perf -n 2,4,8 --tune mw.table && MW_TUNING=mw.table ...
  mw perf -n 2 --worlds 100 --active 10 --json sendrecv
  MW_STORE=tcp://10.0.0.1:29400 MW_NRANKS=2 MW_RANK=0 mw perf --transport tcp all
";

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: Args,
    }

    pub(crate) fn read(words: &str) -> Result<Args, String> {
        let words = std::iter::once("perf").chain(words.split_whitespace());
        Only::try_parse_from(words).map(|only| only.args).map_err(|e| e.to_string())
    }

    #[test]
    fn names_of_operations_have_other_forms() {
        let args = read("lat allreduce all-gather bcast all").unwrap();
        let ops = [Op::SendRecv, Op::AllReduce, Op::AllGather, Op::Broadcast].map(OpChoice::One);
        assert_eq!(args.ops, [&ops[..], &[OpChoice::All]].concat());
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (words, expected) in [
            ("", "<OP>..."),
            ("allreduze", "all_to_all, gather, scatter, barrier, all"),
            ("bw -b 8X", "'--min <SIZE>'"),
            ("bw --sizes 8,x", "'--sizes <SIZE,...>'"),
            ("bw -f 1", "'--factor <FACTOR>'"),
            ("bw -t float31", "the data types are int8, uint8"),
            ("bw -o median", "the reductions are sum, prod, max, min, avg"),
            ("bw -n 0", "'--ranks <RANKS>'"),
            ("bw --pin", "--ranks <RANKS>"),
            ("bw -i 0", "'--iterations <N>'"),
            ("bw -i 1 --seconds 1", "'--iterations <N>' cannot be used with '--seconds"),
            ("bw --seconds 0", "more than 0"),
            ("bw --json --csv", "'--json' cannot be used with '--csv'"),
            ("bw --sizes 8 -b 8", "cannot be used with"),
            ("bw --transport udp", "auto, shm, tcp"),
            ("bw -n 2,x", "'--ranks <RANKS>'"),
            ("bw --quick", "--tune <FILE>"),
            ("--tune x", "--ranks <RANKS>"),
            ("--tune", "a value is required for '--tune <FILE>'"),
            ("--tune x -n 2 bw", "'--tune <FILE>' cannot be used with"),
            ("--tune x -n 2 --csv", "'--tune <FILE>' cannot be used with"),
            ("--tune x -n 2 -t half", "'--tune <FILE>' cannot be used with"),
            ("--tune x -n 2 --backend nccl", "'--tune <FILE>' cannot be used with"),
        ] {
            let text = read(words).expect_err(words);
            assert!(text.contains(expected), "{words}: {text}");
        }
    }

    #[test]
    fn what_is_given_is_taken() {
        let args = read("-n 3 -t half -o max --sizes 8,4K all_reduce --seconds 0.25").unwrap();
        assert_eq!((args.ranks, args.datatype, args.redop), (vec![3], DataType::Float16, RedOp::Max));
        assert_eq!(args.sizes, [8, 4096]);
        assert_eq!(args.seconds, Some(Duration::from_millis(250)));
    }
}
