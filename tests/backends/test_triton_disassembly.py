from __future__ import annotations

from einfall.backends.triton_disassembly import (
    Loop,
    find_loops,
    parse_amd,
    parse_nvidia,
    tensor_core,
)

NESTED = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 BRA `(.L_x_9) ;
.L_x_0:
        /*0020*/                   STL.64 [R1], R2 ;
.L_x_1:
        /*0030*/                   HGMMA.64x128x16.F32 R24, gdesc[UR8], R24 ;
        /*0040*/                   MUFU.EX2 R3, R3 ;
        /*0050*/                   LDL.64 R2, [R1] ;
        /*0060*/                   LDL R4, [R1+0x8] ;
        /*0070*/               @P1 BRA `(.L_x_1) ;
        /*0080*/                   LDS.128 R4, [R2] ;
        /*0090*/                   STS [R2], R4 ;
        /*00a0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00b0*/               @P2 BRA `(.L_x_0) ;
.L_x_9:
        /*00c0*/               @P3 EXIT ;
        /*00d0*/                   STL [R1], R2 ;
        /*00e0*/                   EXIT ;
.L_x_3:
        /*00f0*/                   BRA `(.L_x_3);
"""

# A wait moved behind the end of the kernel: it jumps back into the loop, around nothing but itself.
OUT_OF_LINE = """
        /*0000*/                   MOV R1, R2 ;
.L_x_0:
        /*0010*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R3 ;
        /*0020*/              @!P1 BRA `(.L_x_5) ;
.L_x_6:
        /*0030*/                   UTCHMMA gdesc[UR8], gdesc[UR4], tmem[UR8], UPT ;
        /*0040*/               @P0 BRA `(.L_x_0) ;
        /*0050*/                   STL [R1], R2 ;
        /*0060*/                   BRA.U UP0, `(.L_x_7) ;
.L_x_7:
        /*0070*/                   EXIT ;
.L_x_5:
        /*0080*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R3 ;
        /*0090*/              @!P1 BRA `(.L_x_5) ;
        /*00a0*/                   BRA `(.L_x_6) ;
"""

AMD = """
kernel:
	s_load_dwordx2 s[0:1], s[4:5], 0x0
	s_branch .LBB0_1
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	v_mfma_f32_32x32x8_f16 a[0:15], v[2:3], v[16:17], 0
	v_exp_f32_e32 v1, v1
	scratch_store_dword off, v2, off offset:4
	s_cbranch_scc0 .LBB0_3
; %bb.2:
	ds_read_b128 v[4:7], v0
	scratch_load_dword v2, off, off offset:4
	s_branch .LBB0_1
.LBB0_3:
	s_endpgm
"""


def test_nested_loops_count_what_is_inside() -> None:
    code = parse_nvidia(NESTED)
    assert len(code) == 16
    assert tensor_core(code) == (("wgmma", 1),)
    outer, inner = find_loops(code)
    assert inner == Loop(2, True, 5, 1, 1, 0, 0, 2, 0, 0)
    assert outer == Loop(1, False, 10, 1, 1, 1, 1, 2, 1, 1)


def test_waits_out_of_line_belong_to_their_loop() -> None:
    (loop,) = find_loops(parse_nvidia(OUT_OF_LINE))
    # Four instructions and the wait's three; not the store between the loop and the wait.
    assert loop == Loop(1, True, 7, 1, 0, 0, 0, 0, 0, 0)


def test_predicated_exits_and_branches_fall_through() -> None:
    code = parse_nvidia(NESTED)
    falls = {(x.opcode, x.target): x.falls for x in code}
    assert falls["BRA", ".L_x_9"] and falls["BRA", ".L_x_0"]
    assert not falls["BRA", ".L_x_3"]
    assert [x.falls for x in code if x.opcode == "EXIT"] == [True, False]
    uniform = [x for x in parse_nvidia(OUT_OF_LINE) if x.opcode == "BRA.U"]
    assert [(x.target, x.falls) for x in uniform] == [(".L_x_7", True)]


def test_amd() -> None:
    code = parse_amd(AMD)
    assert tensor_core(code) == (("mfma", 1),)
    (loop,) = find_loops(code)
    assert loop == Loop(1, True, 7, 1, 1, 1, 0, 1, 1, 0)


def test_no_code_no_loops() -> None:
    assert find_loops(parse_nvidia("")) == ()
    assert find_loops(parse_nvidia("        /*0000*/                   EXIT ;")) == ()
