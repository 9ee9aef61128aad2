"""Every layout as it is published, and what becomes of rows that make no sense."""

import gzip
import json

import pytest
from backports import zstd

from poorwill.core.errors import OperatorFault, RequestFault
from poorwill.core.problems import ConfigFault
from poorwill.hosts.files.traces.layouts import read_mapping
from poorwill.hosts.files.traces.readers import read_trace
from poorwill.hosts.files.traces.service import ServiceRule
from poorwill.hosts.files.traces.trace import UNKNOWN

S = 1_000_000


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_own_columns_to_the_microsecond(tmp_path):
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


def test_azure_is_dated_by_its_first_row(tmp_path):
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


def test_mooncake_counts_milliseconds(tmp_path):
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


def test_gzip_is_told_by_its_bytes(tmp_path):
    path = tmp_path / "trace"
    path.write_bytes(gzip.compress(b"arrival_s\n1\n2\n"))
    assert read_trace(str(path)).trace.arrival_us.tolist() == [S, 2 * S]


def test_a_truncated_gzip_is_an_error(tmp_path):
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


def test_bad_rows_are_named_by_line(tmp_path):
    reading = read_trace(written(tmp_path, BAD))
    assert [problem.line for problem in reading.bad] == [3, 4, 5, 6, 7, 8, 9]
    assert "'soon'" in str(reading.bad[0])
    assert reading.bad_count == 7
    assert reading.trace.arrival_us.tolist() == [S, 7 * S]


def test_bad_rows_can_be_refused_together(tmp_path):
    with pytest.raises(ConfigFault) as caught:
        read_trace(written(tmp_path, BAD), refuse_bad=True)
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5, 6, 7, 8, 9]


def test_a_broken_json_line_is_a_bad_row(tmp_path):
    lines = ('{"arrival_s": 5}', '{"arrival_s": ', '["x"]', '{"time": 3}', "[" * 100_000)
    reading = read_trace(written(tmp_path, "\n".join(lines), "m.jsonl"))
    assert [problem.line for problem in reading.bad] == [2, 3, 4, 5]
    assert len(reading.trace) == 1


def test_unsorted_rows_are_counted(tmp_path):
    reading = read_trace(written(tmp_path, "arrival_s,service_s\n3,1\n1,2\n2,3\n"))
    assert reading.unsorted == 2
    assert reading.trace.service_us.tolist() == [2 * S, 3 * S, 1 * S]


def test_an_unknown_layout_lists_the_known(tmp_path):
    with pytest.raises(OperatorFault) as caught:
        read_trace(written(tmp_path, "when,what\n1,2\n"))
    told = f"{caught.value} {caught.value.hint}"
    assert "its columns: when, what" in told
    for needed in ("poorwill: arrival_s", "azure: TIMESTAMP", "burstgpt", "--columns arrival=NAME"):
        assert needed in told


def test_a_file_without_requests_says_so(tmp_path):
    with pytest.raises(OperatorFault):
        read_trace(written(tmp_path, "arrival_s\nx\n"))
    with pytest.raises(OperatorFault):
        read_trace(str(tmp_path / "nothing-here.csv"))


def test_an_unknown_model_lists_the_others(tmp_path):
    trace = read_trace(written(tmp_path, "arrival_s,model\n1,a\n2,b\n3,a\n")).trace
    assert trace.only("a").arrival_us.tolist() == [S, 3 * S]
    with pytest.raises(RequestFault) as caught:
        trace.only("c")
    assert "a, b" in str(caught.value)


def test_service_times_by_precedence(tmp_path):
    path = written(
        tmp_path,
        "arrival_s,service_s,prompt_tokens,output_tokens\n1,4,1000,100\n2,,1000,100\n3,,,\n",
    )
    trace = read_trace(path).trace
    rule = ServiceRule(constant_us=30 * S, prompt_tokens_s=2000.0, output_tokens_s=50.0)
    assert rule.times(trace).tolist() == [4 * S, 2_500_000, 30 * S]
    assert ServiceRule(constant_us=7 * S).times(trace).tolist() == [4 * S, 7 * S, 7 * S]


# logs of servers and gateways


def test_litellm_spend_logs_as_csv(tmp_path):
    path = written(
        tmp_path,
        "request_id,spend,prompt_tokens,completion_tokens,startTime,endTime,model\n"
        "r0,0.1,200,100,2026-11-02T09:07:48.5+00:00,2026-11-02T09:07:52.75+00:00,llama\n"
        'r1,0.1,300,50,2026-11-02T09:08:48.5+00:00,,"a, b"\n',
    )
    reading = read_trace(path)
    trace = reading.trace
    assert (reading.layout, trace.origin_us) == ("litellm", 1_793_610_468_500_000)
    assert trace.service_us.tolist() == [4_250_000, UNKNOWN]
    assert trace.output_tokens.tolist() == [100, 50]
    assert trace.models == ("llama", "a, b")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("indent", [None, 2])
def test_litellm_spend_logs_as_json(tmp_path, wrapped, indent):
    row = {"startTime": "2026-11-02T09:00:00Z", "endTime": "2026-11-02T09:00:04Z", "prompt_tokens": 7}
    rows = [row, row | {"metadata": {"a": [1]}}]
    path = written(tmp_path, json.dumps({"data": rows} if wrapped else rows, indent=indent))
    trace = read_trace(path).trace
    assert trace.service_us.tolist() == [4 * S, 4 * S]
    assert trace.prompt_tokens.tolist() == [7, 7]


def test_openai_logs_are_dated_by_created(tmp_path):
    usage = {"prompt_tokens": 454, "completion_tokens": 210, "total_tokens": 664}
    answer = {"object": "chat.completion", "created": 1793610468, "model": "m", "usage": usage}
    new = {"created_at": 1793610470, "model": "m", "usage": {"input_tokens": 1, "output_tokens": 2}}
    for rows in ([answer, answer], [{"response": {"body": answer}}]):
        reading = read_trace(written(tmp_path, "\n".join(map(json.dumps, rows))))
        assert reading.layout == "openai"
        assert reading.trace.origin_us == 1_793_610_468 * S
        assert reading.trace.prompt_tokens.tolist() == [454] * len(rows)
        assert "created counts seconds since 1970" in reading.notes[0]
    assert read_trace(written(tmp_path, json.dumps(new))).trace.output_tokens.tolist() == [2]


def test_nginx_lines_are_stamped_at_the_end(tmp_path):
    line = '1.2.3.4 - - [02/Nov/2026:10:07:48 +0100] "{}" 200 12 "-" "curl" rt={}\n'
    path = written(
        tmp_path,
        line.format("POST /v1/chat/completions HTTP/1.1", "4.500")
        + line.format("GET /v1/models HTTP/1.1", "0.001")
        + line.format("POST /v1/embeddings?x=1 HTTP/2.0", "0.250"),
    )
    reading = read_trace(path)
    assert reading.layout == "nginx"
    assert reading.trace.origin_us == 1_793_610_468 * S - 4_500_000
    assert reading.trace.arrival_us.tolist() == [0, 4_250_000]
    assert reading.trace.service_us.tolist() == [4_500_000, 250_000]


def test_vllm_logs_have_no_year(tmp_path):
    path = written(
        tmp_path,
        "INFO 12-31 23:59:50 [api_server.py:1] vLLM API server version 0.11\n"
        "(APIServer pid=1) INFO 12-31 23:59:58 [logger.py:40] Received request chatcmpl-a: prompt: 'x', p\n"
        'INFO:     1.2.3.4:5 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
        "INFO 01-01 00:00:03 [async_llm.py:1] Finished request chatcmpl-a.\n"
        "INFO 01-01 00:00:08 logger.py:37] Received request cmpl-b-0: prompt: 'y', params: z\n",
        "vllm.log",
    )
    reading = read_trace(path)
    assert reading.trace.arrival_us.tolist() == [0, 10 * S]
    assert reading.trace.service_us.tolist() == [5 * S, UNKNOWN]
    assert reading.trace.origin_us is None
    assert any("no year" in note for note in reading.notes)


def test_llama_server_logs(tmp_path):
    path = written(
        tmp_path,
        "0.00.100.000 I srv  update_slots: all slots are idle\n"
        "2.09.112.847 I slot launch_slot_: id  1 | task 118 | processing task, is_child = 0\n"
        "2.35.285.030 I slot print_timing: id 1 | task 118 | prompt eval time = 20316.41 ms /   550 tokens\n"
        "2.35.285.035 I slot print_timing: id 1 | task 118 |  eval time = 5855.24 ms /   134 tokens\n"
        "2.35.285.790 I slot    release: id  1 | task 118 | stop processing: n_tokens = 685\n"
        "3.00.000.000 I slot launch_slot_: id  0 | task 120 | processing task, is_child = 0\n",
        "llama.log",
    )
    trace = read_trace(path).trace
    assert trace.arrival_us.tolist() == [129_112_847, 180 * S]
    assert trace.service_us.tolist() == [26_171_650, UNKNOWN]
    assert (trace.prompt_tokens[0], trace.output_tokens[0]) == (550, 134)


def test_a_llama_log_without_times_says_so(tmp_path):
    path = written(tmp_path, "slot launch_slot_: id  1 | task 1 | processing task\n")
    with pytest.raises(OperatorFault) as caught:
        read_trace(path)
    assert "--log-timestamps" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("log", "needed"),
    [
        ('1.2.3.4 - - [30/Nov/2026:09:00:00 +0000] "GET / HTTP/1.1" 200 1\n', "POST to an inference path"),
        ("INFO 11-30 09:00:00 [api_server.py:1] Started\n", "--enable-log-requests"),
        ("0.00.100.000 I srv  update_slots: all slots are idle\n", "launch_slot_"),
        ("arrival_s\n", "no rows"),
        ('[{"arrival_s": 0},\n', "CSV, JSON"),
    ],
)
def test_what_a_file_lacks_is_named(log, needed, tmp_path):
    with pytest.raises(OperatorFault) as caught:
        read_trace(written(tmp_path, log))
    assert needed in str(caught.value.hint)
    assert log[0] != "[" or "not JSON" in str(caught.value)


def test_members_of_json_in_any_case(tmp_path):
    turns = [{"From": "human", "Value": "a", "TimeStamp": f"2026-11-02T09:0{n}:00Z"} for n in range(2)]
    path = written(tmp_path, json.dumps({"DATA": [{"ID": "1", "Conversations": turns}]}))
    assert read_trace(path).trace.arrival_us.tolist() == [0, 60 * S]


def test_sharegpt_is_dated_by_its_turns(tmp_path):
    turns = [
        {"from": "human", "value": "a", "timestamp": "2026-11-02T09:00:00Z"},
        {"from": "gpt", "value": "b", "timestamp": "2026-11-02T09:00:05Z"},
        {"from": "human", "value": "c", "timestamp": "2026-11-02T09:01:00Z"},
    ]
    path = written(tmp_path, json.dumps([{"id": "1", "conversations": turns}]))
    reading = read_trace(path)
    assert reading.layout == "sharegpt"
    assert reading.trace.arrival_us.tolist() == [0, 60 * S]
    bare = [{"id": "1", "conversations": [{"from": "human", "value": "a"}]}]
    with pytest.raises(OperatorFault, match="id"):
        read_trace(written(tmp_path, json.dumps(bare)))


# what else files may look like


@pytest.mark.parametrize(
    "text",
    [
        "Arrival_S;SERVICE_S;Prompt Tokens\n1,5;2,25;10\n",
        "arrival-s\tservice s\tprompttokens\r\n1.5\t2.25\t10\r\n",
        "\ufeffarrival_s,service_s,prompt_tokens\n1.5,2.25,10\n",
        '{"arrival_s": 1.5, "service_s": 2.25, "prompt_tokens": 10}\n',
        '\n[{"Arrival_s": "1.5", "service_s": 2.25, "prompt_tokens": 10}]',
    ],
)
def test_the_same_row_in_every_writing(tmp_path, text):
    trace = read_trace(written(tmp_path, text)).trace
    row = (trace.arrival_us[0], trace.service_us[0], trace.prompt_tokens[0])
    assert row == (1_500_000, 2_250_000, 10)


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_packed_files_are_read(tmp_path, pack):
    path = tmp_path / "trace"
    path.write_bytes(pack(b"arrival_s\n1\n2\n"))
    assert len(read_trace(str(path)).trace) == 2


def test_utf_16_and_odd_bytes(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_bytes("arrival_s\tmodel\n1\té\n".encode("utf-16"))
    assert read_trace(str(path)).trace.models == ("é",)
    path.write_bytes(b"arrival_s,model\n1,\xe9\n")
    assert len(read_trace(str(path)).trace) == 1


def test_a_column_map_serves_any_table(tmp_path):
    path = written(tmp_path, "when,took,who\n5000,250,a\n7000,,b\n")
    trace = read_trace(path, columns=read_mapping("arrival=When:ms, service=took:ms, model=who")).trace
    assert trace.arrival_us.tolist() == [5 * S, 7 * S]
    assert trace.service_us.tolist() == [250_000, UNKNOWN]
    with pytest.raises(OperatorFault, match="has no column gone; its columns: when, took, who"):
        read_trace(path, columns=read_mapping("arrival=gone:ms"))


@pytest.mark.parametrize("text", ["arrival", "when=ts", "arrival="])
def test_a_wrong_column_map_shows_one(text):
    with pytest.raises(RequestFault) as caught:
        read_mapping(text)
    assert "arrival=ts:ms" in str(caught.value.hint)
