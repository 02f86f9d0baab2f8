//! x
use crate::{repository::Repository, setup::Policy};
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// x
    X,
}
pub(crate) fn run(_: &Repository, _: Policy, _: &Bench) -> anyhow::Result<()> {
    Ok(())
}
pub(crate) mod timed {
    use std::process::ExitCode;
    #[derive(clap::Args)]
    pub(crate) struct Options {}
    pub(crate) fn run(_: &Options) -> anyhow::Result<ExitCode> {
        Ok(ExitCode::SUCCESS)
    }
}
