"""The single server's tests of OpenAI's API over HTTP, unchanged, against a cluster. The others of their files need a server of their own."""

import httpx
import pytest

from tests.inference.server.test_openai import (  # noqa: F401
    test_every_reply_says_its_rate,
    test_head_is_answered_as_get_without_a_body,
    test_models_are_listed_for_everybody_in_their_format,
    test_no_text_at_all_and_wrong_fields_are_still_refused,
    test_null_means_the_default,
    test_openais_client_retrieves_a_model_by_any_name,
    test_signs_alone_are_a_short_silence,
    test_silence_is_a_file_in_every_format,
    test_voices_are_listed_as_open_webui_reads_them,
)
from tests.inference.server.test_server import (  # noqa: F401
    client,
    test_a_client_that_leaves_cancels_its_request,
    test_an_unannounced_body_is_limited_too,
    test_bad_input_gets_one_sentence_and_the_server_goes_on,
    test_events_carry_the_same_file,
    test_many_at_once_get_what_they_would_get_alone,
    test_metrics_come_from_the_engine,
    test_pages_of_other_origins_may_not_ask,
    test_raw_samples_have_the_rate_that_openais_clients_assume,
    test_speed_and_rate_are_kept,
    test_streamed_and_whole_wav_and_pcm_hold_the_same_sound,
    test_the_first_chunk_comes_long_before_the_last,
    test_the_openai_client_speaks_to_it,
    test_unknown_paths_and_methods_answer_in_the_same_shape,
)


@pytest.fixture(scope="session")
def server(cluster):
    return cluster


def test_a_response_has_one_id(server):
    assert httpx.get(f"{server.url}/ready", headers={"X-Request-Id": "mine"}).headers.get_list("x-request-id") == ["mine"]
