"""What the dashboards show: one list, read by generate.py (Grafana), the integration test and
the drawing of the pictures in docs/.

`$S` stands for the selector of the variables, `$__rate_interval` is Grafana's.
"""

import dataclasses

SELECTOR = 'job=~"$job", instance=~"$instance", model=~"$model"'


@dataclasses.dataclass(frozen=True)
class Query:
    expr: str
    legend: str
    is_line: bool = False     # of a stack: a line beside it

    @property
    def promql(self):
        return self.expr.replace("$S", SELECTOR)


@dataclasses.dataclass(frozen=True)
class Panel:
    title: str
    what: str                 # shown as the panel's description
    unit: str                 # of Grafana
    queries: tuple
    kind: str = "lines"       # lines, stack, stat, or names (a stat of the legend alone)
    minimum: float | None = 0
    maximum: float | None = None


@dataclasses.dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    what: str
    panels: tuple


def rate(metric, labels=""):
    return f"rate({metric}{{$S{labels}}}[$__rate_interval])"


def total(metric, by="", labels=""):
    group = f" by ({by})" if by else ""
    return f"sum{group} ({rate(metric, labels)})"


def ratio(above, below):
    return f"{above} / {below}"


def quantile(q, metric, by=""):
    group = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({group}) ({rate(metric + '_bucket')}))"


def quantiles(metric, legend=""):
    return tuple(Query(quantile(q, metric), f"{legend}p{q * 100:g}") for q in (0.5, 0.9, 0.99))


ACCEPTANCE_RATE = ratio(total("tandem_spec_accepted_tokens_total"),
                        total("tandem_spec_draft_tokens_total"))
ACCEPTANCE_LENGTH = "1 + " + ratio(total("tandem_spec_accepted_tokens_total"),
                                   total("tandem_spec_drafts_total"))
SPEEDUP = ratio(total("tandem_spec_plain_decode_seconds_total"),
                total("tandem_spec_decode_seconds_total"))
ERROR_CODES = ', code=~"INTERNAL|UNKNOWN|UNAVAILABLE|ABORTED|DATA_LOSS"'

OVERVIEW = Dashboard(
    "tandem-overview", "Tandem overview", "Is it up, is it quick, is it full.", (
        Panel("Ready", "1 while requests are taken.", "short",
              (Query("min(tandem_ready{$S})", "ready"),), kind="stat", maximum=1),
        Panel("Output", "Tokens generated in a second.", "tok/s",
              (Query(total("tandem_generation_tokens_total"), "tokens/s"),), kind="stat"),
        Panel("Time to first token, p99", "From arrival, tokenization included.", "s",
              (Query(quantile(0.99, "tandem_time_to_first_token_seconds"), "p99"),), kind="stat"),
        Panel("Acceptance rate", "Accepted over proposed draft tokens.", "percentunit",
              (Query(ACCEPTANCE_RATE, "accepted"),), kind="stat", maximum=1),
        Panel("Tokens", "In: prompts of finished answers. Out: tokens generated.", "tok/s",
              (Query(total("tandem_prompt_tokens_total"), "in"),
               Query(total("tandem_generation_tokens_total"), "out"))),
        Panel("Requests", "In steps, in the queue, and the queue's limit.", "short",
              (Query("sum(tandem_requests_running{$S})", "running"),
               Query("sum(tandem_requests_waiting{$S})", "waiting"),
               Query('sum(tandem_requests_limit{$S, state="waiting"})', "queue's limit"))),
        Panel("Calls", "Finished calls by gRPC code.", "reqps",
              (Query(total("tandem_requests_total", "code"), "{{code}}"),), kind="stack"),
        Panel("Refused calls", "Before they ran, by reason.", "reqps",
              (Query(total("tandem_requests_rejected_total", "reason"), "{{reason}}"),),
              kind="stack"),
        Panel("Page pool", "Used over all pages.", "percentunit",
              (Query("max by (instance) (tandem_kv_usage_ratio{$S})", "{{instance}}"),),
              maximum=1),
        Panel("Processor of the gateway", "Cores used.", "short",
              (Query('rate(process_cpu_seconds_total{job=~"$job", instance=~"$instance"}'
                     "[$__rate_interval])", "{{instance}}"),)),
        Panel("Memory of the gateway", "Resident.", "bytes",
              (Query('process_resident_memory_bytes{job=~"$job", instance=~"$instance"}',
                     "{{instance}}"),)),
        Panel("Files of the gateway", "Open descriptors, connections among them, over how many "
              "there may be.", "percentunit",
              (Query('process_open_fds{job=~"$job", instance=~"$instance"} / process_max_fds',
                     "{{instance}}"),), maximum=1),
    ))

SPECULATION = Dashboard(
    "tandem-speculation", "Tandem speculation", "What drafting is worth.", (
        Panel("Acceptance rate", "Accepted over proposed draft tokens, by source of the draft.",
              "percentunit",
              (Query(ratio(total("tandem_spec_accepted_tokens_total", "source"),
                           "(" + total("tandem_spec_draft_tokens_total", "source") + " > 0)"),
                     "{{source}}"),
               Query(ACCEPTANCE_RATE, "all")), maximum=1),
        Panel("Acceptance length", "Tokens of a step with a draft, the target's own included.",
              "short", (Query(ACCEPTANCE_LENGTH, "tokens"),), minimum=1),
        Panel("Accepted by position", "Share of the drafts whose n-th token was accepted.",
              "percentunit",
              (Query("sum by (position) (" + rate("tandem_spec_accepted_tokens_per_position_total")
                     + ") / on () group_left () " + total("tandem_spec_drafts_total"),
                     "{{position}}"),), maximum=1),
        Panel("Draft length", "Mean length of the drafts of a step.", "short",
              (Query("avg(tandem_spec_draft_length{$S})", "now"),
               Query(ratio(total("tandem_spec_draft_tokens_total"),
                           total("tandem_spec_drafts_total")), "of drafts made"))),
        Panel("Net speed-up", "Decode time that answers would have taken one token a step, over "
              "what they took. Below 1, drafting costs.", "x",
              (Query(SPEEDUP, "times"),)),
        Panel("Output from drafts", "Share of the output that was drafted.", "percentunit",
              (Query(ratio(total("tandem_spec_accepted_tokens_total"),
                           total("tandem_generation_tokens_total")), "drafted"),), maximum=1),
        Panel("Steps without a draft", "By reason.", "ops",
              (Query(total("tandem_spec_bypass_total", "reason"), "{{reason}}"),), kind="stack"),
        Panel("Share without a draft", "Steps without a draft over all steps of sequences.",
              "percentunit",
              (Query("max(instance:tandem_spec_bypass:ratio_rate5m{$S})", "without a draft"),),
              maximum=1),
        Panel("Drafts", "Verified, by source.", "ops",
              (Query(total("tandem_spec_drafts_total", "source"), "{{source}}"),), kind="stack"),
    ))

MEMORY = Dashboard(
    "tandem-memory", "Tandem VRAM and KV pages",
    "Memory of the device (of the host on a machine without one) and the page pool.", (
        Panel("Memory by role and kind", "Stacked, against the budget.", "bytes",
              (Query("sum by (role, kind) (tandem_vram_bytes{$S})", "{{role}} {{kind}}"),
               Query("sum(tandem_vram_budget_bytes{$S})", "budget", is_line=True)),
              kind="stack"),
        Panel("Memory of the device", "Total, free, budget, and used by nothing of Tandem.",
              "bytes",
              (Query("max(tandem_vram_total_bytes{$S})", "total"),
               Query("max(tandem_vram_free_bytes{$S})", "free"),
               Query("max(tandem_vram_budget_bytes{$S})", "budget"),
               Query("max(tandem_vram_unaccounted_bytes{$S})", "unaccounted"))),
        Panel("Pages by state", "Cached ones are given up when others need them.", "short",
              (Query("sum by (state) (tandem_kv_pages{$S})", "{{state}}"),), kind="stack"),
        Panel("Pages in host memory", "Of preempted sequences; room for more.", "short",
              (Query("sum by (state) (tandem_swap_pages{$S})", "{{state}}"),), kind="stack"),
        Panel("Page pool", "Used over all pages.", "percentunit",
              (Query("max by (instance) (tandem_kv_usage_ratio{$S})", "{{instance}}"),),
              maximum=1),
        Panel("Prefix cache", "Prompt tokens found among cached pages.", "percentunit",
              (Query(ratio(total("tandem_prefix_cache_hit_tokens_total"),
                           total("tandem_prefix_cache_queried_tokens_total")), "hits"),),
              maximum=1),
        Panel("When pages run short", "Rungs of the ladder that were used.", "ops",
              (Query(total("tandem_pressure_total", "rung"), "{{rung}}"),
               Query(total("tandem_preemptions_total"), "preemptions"),
               Query(total("tandem_kv_evictions_total"), "evictions"),
               Query(total("tandem_swapped_pages_total", "direction"),
                     "pages swapped {{direction}}"))),
    ))

LATENCY = Dashboard(
    "tandem-latency", "Tandem latency and SLO", "How long people wait, and how often in vain.", (
        Panel("Time to first token", "From arrival, tokenization included.", "s",
              quantiles("tandem_time_to_first_token_seconds")),
        Panel("Time per output token",
              "(duration - time to first token) / (output tokens - 1), of each answer.", "s",
              quantiles("tandem_time_per_output_token_seconds")),
        Panel("Between tokens", "Between commits of a request, over their tokens.", "s",
              quantiles("tandem_inter_token_latency_seconds")),
        Panel("Call", "From arrival to the end, of Generate.", "s",
              tuple(Query("histogram_quantile(" + str(q) + ", sum by (le) (rate("
                          "tandem_request_duration_seconds_bucket{$S, method=\"Generate\"}"
                          "[$__rate_interval])))", f"p{q * 100:g}") for q in (0.5, 0.9, 0.99))),
        Panel("Parts of an answer", "90 % of the answers took less.", "s",
              tuple(Query(quantile(0.9, f"tandem_request_{part}_seconds"), part)
                    for part in ("queue", "prefill", "decode"))),
        Panel("Length of requests", "Half of them are shorter.", "short",
              tuple(Query(quantile(0.5, f"tandem_request_{kind}_tokens"), kind)
                    for kind in ("prompt", "generation"))),
        Panel("Failed calls", "Through the server's fault; the objective is 1 %.", "percentunit",
              (Query("(" + total("tandem_requests_total", labels=ERROR_CODES) + " or vector(0)) / "
                     + total("tandem_requests_total"), "failed"),)),
        Panel("Waiting for clients", "How long messages wait for the connection, and text that "
              "waits.", "s", quantiles("tandem_stream_send_blocked_seconds")),
        Panel("Text that waits for clients", "Of all streams.", "bytes",
              (Query("sum(tandem_stream_buffered_bytes{$S})", "bytes"),)),
        Panel("Tokens in a message", "More than a step makes: many streams share the messages "
              "of --stream-messages, or clients read slowly.", "short",
              (Query(ratio(total("tandem_generation_tokens_total"),
                           total("tandem_stream_messages_total", labels=', event="delta"')),
                     "tokens"),)),
    ))

WORKERS = Dashboard(
    "tandem-workers", "Tandem workers", "Draft and target, step by step.", (
        Panel("Up", "1 while the worker takes steps.", "short",
              (Query("min by (role) (tandem_worker_up{$S})", "{{role}}"),), kind="stat",
              maximum=1),
        Panel("Restarts", "In the last hour.", "short",
              (Query("sum by (role, reason) (increase(tandem_worker_restarts_total{$S}[1h]))",
                     "{{role}} {{reason}}"),), kind="stat"),
        Panel("Start", "The file mapped and checked, the weights in place, steps taken.", "s",
              (Query("max by (role, phase) (tandem_model_load_duration_seconds{$S})",
                     "{{role}} {{phase}}"),), kind="stat"),
        Panel("Model", "What each worker has loaded, and on which device.", "short",
              (Query("max by (role, name, quantization, device) (tandem_model_info{$S})",
                     "{{role}}: {{name}} {{quantization}} on {{device}}"),), kind="names"),
        Panel("Build", "What each process was built from: one version and commit for all.", "short",
              (Query("max by (role, version, commit, cuda) (tandem_build_info{$S})",
                     "{{role}}: {{version}}, commit {{commit}}, CUDA {{cuda}}"),), kind="names"),
        Panel("Time of a step, p90", "As the gateway sees it, and as the worker measures it.", "s",
              (Query(quantile(0.9, "tandem_step_duration_seconds", "role, phase"),
                     "{{role}} {{phase}}"),)),
        Panel("Share of the time", "That each part of the steps takes.", "percentunit",
              (Query(total("tandem_step_duration_seconds_sum", "role, phase"),
                     "{{role}} {{phase}}"),)),
        Panel("Steps", "In a second.", "ops",
              (Query(total("tandem_batch_size_count", "role"), "{{role}}"),)),
        Panel("Sequences in a step", "On average.", "short",
              (Query(ratio(total("tandem_batch_size_sum", "role"),
                           total("tandem_batch_size_count", "role")), "{{role}}"),)),
        Panel("Lines logged by the gateway", "By level.", "ops",
              (Query(total("tandem_log_messages_total", "level"), "{{level}}"),), kind="stack"),
    ))

DASHBOARDS = (OVERVIEW, SPECULATION, MEMORY, LATENCY, WORKERS)
