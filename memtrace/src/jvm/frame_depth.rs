//! How much of a compiled method's frame is there at an instruction.
//!
//! The instructions that come next go in, as many as it takes to get where the frame is known: to a return, where the
//! return address is on top, or to the end of a call that the compiler describes, where the frame is whole. What they
//! push, pop, reserve and release on the way there comes out, as the place of the return address now. So it does not
//! matter how a compiler begins and ends its methods, nor what it pushes in the middle of one. Nothing is executed, and
//! what can't be known is `None`.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use rustc_hash::FxHashSet;

/// The longest instruction.
pub(super) const MAX_INSTRUCTION_BYTES: usize = 15;
/// Instructions that are looked at; the next call or return is mostly a few away.
const MAX_INSTRUCTIONS: usize = 4096;
/// Ways that are not tried yet, and moves of the frame pointer that are remembered of one.
const MAX_WAYS: usize = 256;
const MAX_MOVES: usize = 16;

/// Where the return address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// So many bytes above the stack pointer; the word below it is the caller's frame pointer, or is it still, or again,
    /// in its register.
    At { slot: u64, is_saved: bool },
    /// Above the word that the frame pointer points to, which is the caller's.
    ByPointer,
}

/// What stands where code jumps to that is not the method's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outside {
    /// What finds the return address on top, as a method does.
    Callee,
    /// What finds the whole frame on top.
    AboveFrame,
    /// What finds the whole frame below a word that was pushed.
    AbovePushed,
}

/// The method that the instruction is in.
pub(super) trait Method {
    /// Bytes of its frame when whole, the return address among them.
    fn frame_bytes(&self) -> u64;
    /// The bytes at `ip`, as many as an instruction may have or the code has left; `None` outside of its code.
    fn code(&self, ip: u64) -> Option<Vec<u8>>;
    /// Whether a call returns to `ip` while the frame is whole.
    fn is_described(&self, ip: u64) -> bool;
    /// What is at `ip`, which is not in its code.
    fn outside(&mut self, ip: u64) -> Option<Outside>;
}

/// What an instruction does with the frame pointer: saves it to, or takes it from, so many bytes above where the stack
/// pointer was at first.
#[derive(Clone, Copy, Debug)]
struct Move {
    slot: i64,
    is_save: bool,
}

/// A way through the code.
#[derive(Clone, Debug)]
struct Way {
    ip: u64,
    /// What the stack pointer has moved by.
    sp: i64,
    moves: Vec<Move>,
    /// Where the stack pointer was when the frame pointer was set to it.
    frame: Option<i64>,
}

/// Where an instruction leads to.
enum Next {
    On,
    Known(Depth),
    /// Nowhere that tells anything.
    Lost,
}

/// How much of the frame is there before the instruction at `ip` is executed.
pub(super) fn depth(method: &mut impl Method, ip: u64) -> Option<Depth> {
    let mut ways = vec![Way { ip, sp: 0, moves: Vec::new(), frame: None }];
    let mut seen = FxHashSet::default();
    while let Some(mut way) = ways.pop() {
        while seen.len() < MAX_INSTRUCTIONS && seen.insert(way.ip) {
            let Some(bytes) = method.code(way.ip) else { break };
            let instruction = Decoder::with_ip(64, &bytes, way.ip, DecoderOptions::NONE).decode();
            if instruction.is_invalid() {
                break;
            }
            way.ip = instruction.next_ip();
            match way.follow(&instruction, method, &mut ways) {
                Next::On => {}
                Next::Known(depth) => return Some(depth),
                Next::Lost => break,
            }
        }
    }
    None
}

impl Way {
    fn follow(
        &mut self,
        instruction: &Instruction,
        method: &mut impl Method,
        ways: &mut Vec<Way>,
    ) -> Next {
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::Interrupt => self.take(instruction),
            FlowControl::Return => self.known(self.sp, false),
            FlowControl::Call if instruction.near_branch_target() == self.ip => {
                // How code learns where it is: nothing returns.
                self.sp -= 8;
                Next::On
            }
            FlowControl::Call | FlowControl::IndirectCall if method.is_described(self.ip) => {
                self.whole(self.sp, method)
            }
            FlowControl::Call | FlowControl::IndirectCall => Next::On,
            FlowControl::ConditionalBranch => {
                let target = instruction.near_branch_target();
                if ways.len() < MAX_WAYS {
                    ways.push(Way { ip: target, ..self.clone() });
                }
                Next::On
            }
            FlowControl::UnconditionalBranch => {
                self.ip = instruction.near_branch_target();
                if method.code(self.ip).is_some() {
                    return Next::On;
                }
                match method.outside(self.ip) {
                    Some(Outside::Callee) => self.known(self.sp, false),
                    Some(Outside::AboveFrame) => self.whole(self.sp, method),
                    Some(Outside::AbovePushed) => self.whole(self.sp + 8, method),
                    None => Next::Lost,
                }
            }
            _ => Next::Lost,
        }
    }

    /// Takes in an instruction that the next one follows.
    fn take(&mut self, instruction: &Instruction) -> Next {
        let is_of_sp = instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() == Register::RSP;
        let Ok(immediate) = instruction.try_immediate(1).map(u64::cast_signed) else {
            return self.take_other(instruction, is_of_sp);
        };
        match instruction.mnemonic() {
            Mnemonic::Sub if is_of_sp => self.sp = self.sp.saturating_sub(immediate),
            Mnemonic::Add if is_of_sp => self.sp = self.sp.saturating_add(immediate),
            Mnemonic::Cmp | Mnemonic::Test => {}
            _ if is_of_sp => return Next::Lost,
            _ => {}
        }
        Next::On
    }

    fn take_other(&mut self, instruction: &Instruction, is_of_sp: bool) -> Next {
        let is_pointer = |op| {
            instruction.op_kind(op) == OpKind::Register
                && instruction.op_register(op) == Register::RBP
        };
        match instruction.mnemonic() {
            Mnemonic::Leave => match self.frame {
                Some(frame) => {
                    self.moved(frame, false);
                    self.sp = frame + 8;
                }
                None => return Next::Known(Depth::ByPointer),
            },
            Mnemonic::Push => {
                self.sp -= 8;
                if is_pointer(0) {
                    self.moved(self.sp, true);
                }
            }
            Mnemonic::Pop if is_of_sp => return Next::Lost,
            Mnemonic::Pop => {
                if is_pointer(0) {
                    self.moved(self.sp, false);
                }
                self.sp += 8;
            }
            Mnemonic::Mov if is_pointer(0) && instruction.op_register(1) == Register::RSP => {
                self.frame = Some(self.sp);
            }
            Mnemonic::Mov if is_pointer(1) && self.is_above_sp(instruction) => {
                self.moved(self.slot(instruction), true);
            }
            Mnemonic::Mov if is_pointer(0) && self.is_above_sp(instruction) => {
                self.moved(self.slot(instruction), false);
            }
            Mnemonic::Lea if is_of_sp && self.is_above_sp(instruction) => {
                self.sp = self.slot(instruction);
            }
            Mnemonic::Cmp | Mnemonic::Test => {}
            _ if is_of_sp => return Next::Lost,
            _ => {
                let moved = i64::from(instruction.stack_pointer_increment());
                self.sp = self.sp.saturating_add(moved);
            }
        }
        Next::On
    }

    fn is_above_sp(&self, instruction: &Instruction) -> bool {
        instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None
    }

    fn slot(&self, instruction: &Instruction) -> i64 {
        self.sp.saturating_add(instruction.memory_displacement64().cast_signed())
    }

    fn moved(&mut self, slot: i64, is_save: bool) {
        if self.moves.len() < MAX_MOVES {
            self.moves.push(Move { slot, is_save });
        }
    }

    /// The whole frame is above `sp`.
    fn whole(&self, sp: i64, method: &impl Method) -> Next {
        match i64::try_from(method.frame_bytes()) {
            Ok(bytes @ 16..) => self.known(sp.saturating_add(bytes - 8), true),
            _ => Next::Lost,
        }
    }

    /// The return address is at `slot`; unless it was moved on the way, the caller's frame pointer is where it is at the
    /// way's end.
    fn known(&self, slot: i64, is_saved_then: bool) -> Next {
        let moved = self.moves.iter().find(|moved| moved.slot == slot - 8);
        let is_saved = moved.map_or(is_saved_then, |moved| !moved.is_save);
        match u64::try_from(slot) {
            Ok(slot) if slot % 8 == 0 => Next::Known(Depth::At { slot, is_saved }),
            _ => Next::Lost,
        }
    }
}

#[cfg(test)]
mod tests;
