"""Every layout as it is published, and what becomes of rows that make no sense."""

import gzip

import pytest

from poorwill.core.errors import ConfigFault, OperatorFault, RequestFault
from poorwill.planner.traces.readers import read_trace
from poorwill.planner.traces.service import ServiceRule
from poorwill.planner.traces.trace import UNKNOWN

S = 1_000_000


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_own_columns_are_read_to_the_microsecond(tmp_path):
    path = written(
        tmp_path,
        "arrival_s,service_s,prompt_tokens,output_tokens,model\n"
        "0.000001,2.5,10,20,a\n7775999.999999,0,1,2,b\n",
    )
    trace = read_trace(path).trace
    assert trace.arrival_us.tolist() == [1, 7_775_999_999_999]
    assert trace.service_us.tolist() == [2_500_000, 0]
    assert trace.prompt_tokens.tolist() == [10, 1]
    assert trace.models == ("a", "b")
    assert trace.origin_us is None


def test_azure_is_dated_by_its_first_request(tmp_path):
    path = written(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:05.0000001,3180,8\n",
    )
    reading = read_trace(path)
    assert reading.layout == "azure"
    assert reading.trace.arrival_us.tolist() == [0, 1_020_040]
    assert reading.trace.origin_us == 1_700_158_623_979_960
    assert reading.trace.service_us.tolist() == [UNKNOWN, UNKNOWN]


def test_the_later_azure_form_has_a_zone(tmp_path):
    path = written(
        tmp_path,
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 02:00:00.009930+02:00,1,2\n",
    )
    assert read_trace(path).trace.origin_us == 1_715_299_200_009_930


def test_both_forms_of_burstgpt(tmp_path):
    early = written(
        tmp_path,
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n",
    )
    trace = read_trace(early).trace
    assert trace.arrival_us.tolist() == [5 * S, 45 * S]
    assert trace.models == ("ChatGPT", "GPT-4")
    assert trace.service_us.tolist() == [UNKNOWN, UNKNOWN]
    later = written(
        tmp_path,
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,1,3.25,ChatGPT,472,18,490,Conversation log\n",
        "later.csv",
    )
    assert read_trace(later).trace.service_us.tolist() == [3_250_000]


def test_mooncake_is_json_lines_in_milliseconds(tmp_path):
    path = written(
        tmp_path,
        '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
        '{"timestamp": 3052, "input_length": 7322, "output_length": 490, "hash_ids": [0]}\n',
        "mooncake.jsonl",
    )
    reading = read_trace(path)
    assert reading.layout == "mooncake"
    assert reading.trace.arrival_us.tolist() == [0, 3_052_000]
    assert reading.trace.output_tokens.tolist() == [500, 490]


def test_a_gzipped_file_is_read_whatever_its_name(tmp_path):
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(b"arrival_s\n1\n2\n"))
    assert read_trace(str(path)).trace.arrival_us.tolist() == [S, 2 * S]


def test_a_truncated_gzip_is_an_error_and_not_a_short_trace(tmp_path):
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(b"arrival_s\n" + b"1\n" * 5000)[:-12])
    with pytest.raises(OperatorFault):
        read_trace(str(path))


BAD = (
    "arrival_s,service_s,prompt_tokens\n"
    "1,1,1\n"
    "soon,1,1\n"
    "2,-1,1\n"
    "-3,1,1\n"
    "nan,1,1\n"
    "4,1,many\n"
    "5,1,1.5\n"
    "6,1\n"
    "7,,\n"
)


def test_bad_rows_are_skipped_and_named_by_line(tmp_path):
    reading = read_trace(written(tmp_path, BAD))
    assert [problem.line for problem in reading.bad] == [3, 4, 5, 6, 7, 8, 9]
    assert "'soon'" in str(reading.bad[0])
    assert reading.bad_count == 7
    assert reading.trace.arrival_us.tolist() == [S, 7 * S]


def test_bad_rows_can_be_refused_all_at_once(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        read_trace(written(tmp_path, BAD), refuse_bad=True)
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5, 6, 7, 8, 9]


def test_a_broken_json_line_is_a_bad_row(tmp_path):
    path = written(tmp_path, '{"timestamp": 5}\n{"timestamp": \n[1]\n{"time": 3}\n', "m.jsonl")
    reading = read_trace(path)
    assert [problem.line for problem in reading.bad] == [2, 3, 4]
    assert len(reading.trace) == 1


def test_rows_out_of_order_are_sorted_and_counted(tmp_path):
    reading = read_trace(written(tmp_path, "arrival_s,service_s\n3,1\n1,2\n2,3\n"))
    assert reading.unsorted == 2
    assert reading.trace.service_us.tolist() == [2 * S, 3 * S, 1 * S]


def test_an_unknown_layout_lists_the_known_ones(tmp_path):
    with pytest.raises(OperatorFault) as caught:
        read_trace(written(tmp_path, "when,what\n1,2\n"))
    for layout in ("poorwill", "azure", "burstgpt"):
        assert layout in str(caught.value)


def test_a_file_without_usable_rows_says_so(tmp_path):
    with pytest.raises(OperatorFault):
        read_trace(written(tmp_path, "arrival_s\nx\n"))
    with pytest.raises(OperatorFault):
        read_trace(str(tmp_path / "nothing-here.csv"))


def test_one_model_is_chosen_by_name_and_an_unknown_one_lists_the_others(tmp_path):
    trace = read_trace(written(tmp_path, "arrival_s,model\n1,a\n2,b\n3,a\n")).trace
    assert trace.only("a").arrival_us.tolist() == [S, 3 * S]
    with pytest.raises(RequestFault) as caught:
        trace.only("c")
    assert "a, b" in str(caught.value)


def test_service_times_come_from_the_trace_then_from_tokens_then_from_the_constant(tmp_path):
    path = written(
        tmp_path,
        "arrival_s,service_s,prompt_tokens,output_tokens\n1,4,1000,100\n2,,1000,100\n3,,,\n",
    )
    trace = read_trace(path).trace
    rule = ServiceRule(constant_us=30 * S, prompt_tokens_s=2000.0, output_tokens_s=50.0)
    assert rule.times(trace).tolist() == [4 * S, 2_500_000, 30 * S]
    assert ServiceRule(constant_us=7 * S).times(trace).tolist() == [4 * S, 7 * S, 7 * S]
