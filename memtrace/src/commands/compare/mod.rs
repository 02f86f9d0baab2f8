//! `memtrace compare --with SETTING… -- COMMAND`: the same start-up under several settings, side by side.

mod progress;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};

use super::{
    args::CompareArgs, failure::Failure, interrupts::Interrupts, outputs, outputs::to_stderr, units,
};
use crate::{
    report::{compare, escape, json, units as report_units},
    target::{self, launch::User},
    trials::{self, Comparison, Failed, Goal, Measured, Plan, Variant},
};
use progress::Progress;

/// Exit status where some starts could not be measured.
const IN_PART: u8 = 3;

pub(super) fn run(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let mut comparison = Comparison {
        command: args.command.clone(),
        goal: goal(args.until.as_deref()),
        n_runs: args.runs,
        variants: variants(args)?.into_iter().map(Measured::of).collect(),
        is_interrupted: false,
    };
    check_command(&args.command)?;
    let user = match &args.user {
        Some(name) => Some(User::find(name)?),
        None => User::behind_sudo()?,
    };
    let json = args.json.as_deref().map(outputs::Output::find).transpose()?;
    let is_stdout_taken = args.json.as_deref().is_some_and(outputs::is_stdout);
    let logs = args.logs.as_deref().map(folder).transpose()?;
    tell_plan(&comparison, args, user.as_ref());
    let interrupts = Interrupts::listen()?;
    let starts = Starts { args, user: user.as_ref(), logs, interrupts };
    starts.all(&mut comparison)?;
    if let Some(json) = json {
        json.write(|out| Ok(json::write_comparison(&comparison, out)?))?;
    }
    if !is_stdout_taken {
        outputs::to_stdout_by(|out| Ok(compare::write_text(&comparison, out)?))?;
    }
    status(&comparison)
}

fn status(comparison: &Comparison) -> Result<ExitCode, Failure> {
    if !comparison.is_any() {
        let why =
            if comparison.is_interrupted { "it was ended early" } else { "all starts failed" };
        let hint = "`--logs DIR` keeps all that the command prints".to_owned();
        let hint = Some(hint).filter(|_| !comparison.is_interrupted);
        return Err(Failure::new(anyhow!("nothing could be measured: {why}"), hint));
    }
    Ok(if comparison.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(IN_PART) })
}

fn goal(until: Option<&str>) -> Goal {
    match until {
        None => Goal::Settled,
        Some(text) => units::parse_time(text).map_or(Goal::Seen(text.to_owned()), Goal::Passed),
    }
}

/// The plain command, then the others as they were typed.
fn variants(args: &CompareArgs) -> Result<Vec<Variant>> {
    if args.until.as_deref() == Some("") {
        return Err(anyhow!("--until: an empty text is seen at once"));
    }
    if let Goal::Passed(time) = goal(args.until.as_deref())
        && time >= args.timeout
    {
        return Err(anyhow!(
            "--until: it is no shorter than --timeout, after which a start is given up"
        ));
    }
    let others = args.settings.iter().map(|text| {
        Variant::parse(text)
            .with_context(|| format!("failed to understand --with {}", escape::line(text)))
    });
    [Ok(Variant::plain())].into_iter().chain(others).collect()
}

/// What can't be started at all is told before anything is.
fn check_command(command: &[String]) -> Result<(), Failure> {
    let program = command.first().map_or("", String::as_str);
    let Some(path) = target::resolve_command(program) else {
        let hint = "the command stands behind `--`, as it is typed in a shell".to_owned();
        return Err(Failure::new(anyhow!("failed to find {}", escape::line(program)), Some(hint)));
    };
    Ok(target::check_program(&path).map_err(anyhow::Error::from)?)
}

fn folder(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("failed to create {}", path.display()))?;
    Ok(path.to_path_buf())
}

fn tell_plan(comparison: &Comparison, args: &CompareArgs, user: Option<&User>) {
    if args.quiet {
        return;
    }
    let n = comparison.variants.len();
    let starts = report_units::things(comparison.n_runs.into(), "start");
    let goal = compare::goal(&comparison.goal);
    let printed = match &args.logs {
        Some(folder) => format!("goes to {}", folder.display()),
        None => "is dropped (--logs DIR keeps it)".to_owned(),
    };
    to_stderr(&format!(
        "memtrace: {n} variants, {starts} each, {goal}; what they print {printed}\n"
    ));
    if let Some(user) = user {
        to_stderr(&format!("memtrace: running them as {}\n", user.name));
    }
    let by_environment =
        comparison.variants.iter().filter(|it| it.variant.is_by_environment(&args.command));
    for Measured { variant, .. } in by_environment {
        let (name, program) = (escape::line(&variant.name), escape::line(&args.command[0]));
        to_stderr(&format!(
            "memtrace: {name}: {program} is no java; its JVMs get the options by JAVA_TOOL_OPTIONS\n"
        ));
    }
}

/// What all starts have in common.
struct Starts<'a> {
    args: &'a CompareArgs,
    user: Option<&'a User>,
    logs: Option<PathBuf>,
    interrupts: Interrupts,
}

impl Starts<'_> {
    /// All variants in turn, again and again.
    fn all(&self, comparison: &mut Comparison) -> Result<()> {
        for round in 1..=comparison.n_runs {
            for index in comparison.order(round) {
                if comparison.variants[index].is_given_up() {
                    continue;
                }
                if !self.one(comparison, round, index)? {
                    comparison.is_interrupted = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One start; tells whether others may follow.
    fn one(&self, comparison: &mut Comparison, round: u32, index: usize) -> Result<bool> {
        let Comparison { command, goal, n_runs, variants, .. } = comparison;
        let measured = &mut variants[index];
        let variant = &measured.variant;
        let progress = Progress::of(&variant.name, round, *n_runs, self.args.quiet);
        let tool_options = std::env::var("JAVA_TOOL_OPTIONS").ok();
        let plan = Plan {
            command: &variant.words(command),
            environment: &variant.variables(command, tool_options.as_deref()),
            user: self.user,
            goal,
            timeout: self.args.timeout,
            log: self.log(index, round)?,
        };
        let n_asked = || self.interrupts.count();
        let result = trials::follow(plan, &n_asked, &mut |time, bytes| progress.show(time, bytes));
        progress.tell_end(result.as_ref().map_err(|(failed, _)| failed));
        match result {
            Ok(run) => measured.runs.push(run),
            Err((Failed::Interrupted, _)) => return Ok(false),
            Err((failed, last_lines)) => {
                let why = failed.to_string();
                measured.failures.push(trials::Failure { round, why, last_lines });
            }
        }
        Ok(n_asked() == 0)
    }

    /// Where the output of a start goes, if it is kept: `0-3.log` is the third start of the plain command.
    fn log(&self, index: usize, round: u32) -> Result<Option<File>> {
        let path = self.logs.as_ref().map(|folder| folder.join(format!("{index}-{round}.log")));
        let file = path.map(|path| {
            let file = outputs::create(&path)?;
            file.set_len(0).with_context(|| format!("failed to empty {}", path.display()))?;
            Ok(file)
        });
        file.transpose()
    }
}
