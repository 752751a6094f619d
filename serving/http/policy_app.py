"""The ASGI application: authenticates each request, passes it to its protocol, and sends the response.

It is bare ASGI because a framework's router and request objects would take longer than the policy does.
"""

import functools
import logging
from collections.abc import Iterator
from http import HTTPStatus
from time import perf_counter

from serving.arguments import Arguments
from serving.experience.episodes import EpisodeHasher, Origin
from serving.experience.journal.encoding import version_spec
from serving.experience.journal.journal import Journal
from serving.experience.online import OnlineReturns
from serving.http import asgi
from serving.http.content_encoding import decoded
from serving.http.faults import FAULTS, Faults, Refuse
from serving.http.notices import warn_of
from serving.http.routes import Routes, not_found, reports_to
from serving.play.protocol import Play
from serving.policy.errors import PolicyFault
from serving.policy.spaces import space_differences
from serving.policy.tensors import Batch
from serving.protocols.episodes import EpisodeReader
from serving.protocols.feedback.protocol import FeedbackProtocol
from serving.protocols.mlflow_scoring.scoring import ScoringProtocol
from serving.protocols.native.observation_size import ObservationSize
from serving.protocols.native.protocol import NativeProtocol
from serving.protocols.open_inference.http import InferenceProtocol
from serving.protocols.protocol import ErrorResponse, Protocol, Request
from serving.replica.arms.arms import Challenge
from serving.replica.arms.live import LiveExperiment, is_promotion
from serving.replica.auth import BearerToken
from serving.replica.batching import Batcher, Batching
from serving.replica.errors import BodyTooLarge, ObservationsTooMany, Overloaded
from serving.replica.identity import Counts, ReplicaIdentity
from serving.replica.metrics import Metrics
from serving.replica.pinned_versions import REPINNED, PinnedVersions, pin_of
from serving.replica.refresh_state import Refresh
from serving.replica.served_policy import ServedPolicy
from serving.rollout.crashes import Crashes
from serving.telemetry.numbers import Number
from serving.telemetry.request_ids import request_id_of

logger = logging.getLogger(__name__)


class PolicyApp:
    """Answers requests with the actions of `served`, which can be replaced at any time.

    Each request reads `served` once, so one version computes its actions and labels its response.
    """

    def __init__(
        self,
        served: ServedPolicy,
        arguments: Arguments = Arguments(),  # noqa: B008 - immutable
        *,
        token: BearerToken | None = None,
        refresh: Refresh = Refresh(),  # noqa: B008 - immutable
        replica: ReplicaIdentity = ReplicaIdentity(),  # noqa: B008 - immutable
        journal: Journal | None = None,
        refuse: Refuse = lambda *_: None,
        crashes: Crashes | None = None,
    ) -> None:
        self.metrics, self.counts = Metrics(), Counts()
        self.refresh = refresh
        self.max_body_bytes = arguments.max_body_bytes
        self.token = token
        self._max_observations = arguments.max_observations
        self._max_ongoing_requests = arguments.max_ongoing_requests
        self._ongoing_requests = 0
        batching = arguments.max_batch_size, arguments.batch_wait_timeout_s, arguments.inference_timeout_s
        self._batching = Batching(*batching)
        self._faults = Faults(self, refuse, crashes)
        self.check, self.answer_again = self._faults.check, self._faults.answer_again
        self._autoscaled = arguments.autoscaling is not None
        self._journal = journal
        self.online = None if journal is None else OnlineReturns(lambda: self.served.version.version)
        self._explore_share = arguments.explore_share
        hashed, records = journal.hashed if journal else EpisodeHasher(), journal is not None
        self.episodes = EpisodeReader(hashed, records=records, explore_share=self._explore_share)
        self.experiment = LiveExperiment(self.episodes.hashed)
        self._pinned = PinnedVersions(arguments.pin_grace_s)
        native = NativeProtocol(
            arguments.max_observations,
            lambda: replica.describe(self.counts),
            lambda: self.refresh,
            self.episodes,
            lambda: None if self.online is None else self.online.describe(),
            lambda: self.experiment.describe(self._served.version),
        )
        play = Play(arguments.play_sessions, lambda: self.served, arguments.environment_modules)
        scoring = ScoringProtocol(arguments.max_observations, self.episodes)
        inference = InferenceProtocol(self.episodes)
        self._routes = Routes(native, scoring, inference, *self._feedback(arguments), play, closed=token is not None)
        self._served = self._prepared(served, quick=False)

    @property
    def served(self) -> ServedPolicy:
        """The policy that answers the next request. A new one is prepared in the thread that assigns it."""
        return self._served

    @served.setter
    def served(self, served: ServedPolicy) -> None:
        # Until it is measured, the new policy counts as quick as the old one, so that a promotion rejects no requests.
        replaced = self._served
        prepared = self._prepared(served, quick=replaced.batcher.quick)
        if is_promotion(served.version, replaced.version):
            self._pinned.keep(replaced)
            has_same_spaces = not space_differences(served.policy, replaced.policy)
            served.fallback = replaced if has_same_spaces and not replaced.is_withdrawn else None
        elif served.version.version == replaced.version.version:
            served.fallback = replaced.fallback
        self._served = prepared
        self.experiment.replace_champion(prepared)
        replaced.fallback = None  # only one version before the served one stays loaded
        self._pinned.drop(served.version.version)  # a rollback may have returned to a version that was held

    @property
    def challenge(self) -> Challenge | None:
        """The challenger of the running experiment; None if there is none, or it cannot be served.

        A new one is prepared in the thread that assigns it. One that replaces itself, in the same experiment with other
        shares, keeps its batcher.
        """
        arms = self.experiment.arms
        return None if arms is None else Challenge(arms.experiment, arms.challenger)

    @challenge.setter
    def challenge(self, challenge: Challenge | None) -> None:
        if challenge is None:
            promoted = self.experiment.end(self._served.version)
            if promoted is not None:
                self._pinned.keep(promoted)  # until it is in the champion's place
            return
        before = self.challenge
        if before is None or before.served is not challenge.served:
            # A challenger that hangs may not delay the champion, so it is never computed in the event loop.
            self._prepared(challenge.served, quick=True, inline=False)
        self.experiment.begin(challenge, self._served)

    def pinned(self, pin: bytes) -> tuple[ServedPolicy, bool]:
        """Return the policy that answers a request with this `X-Pin-Version`, and whether it is of another version.

        Raises PinInvalid.
        """
        chosen, arms = self._pinned.choose(pin, self._served), self.experiment.arms
        is_other = chosen.version.version != int(pin)
        if is_other and arms is not None and arms.answers(int(pin)):
            return arms.challenger, False
        return chosen, is_other

    def fall_back_on(self, served: ServedPolicy, fallback: ServedPolicy) -> None:
        """Let `fallback` answer the requests that `served` fails to answer. It is prepared in the calling thread."""
        served.fallback = self._prepared(fallback, quick=served.batcher.quick)

    def release(self, served: ServedPolicy) -> None:
        """Release a version that is held for the episodes that began with it, or that is the challenger."""
        self._pinned.drop(served.version.version)
        if (arms := self.experiment.arms) is not None and arms.challenger is served:
            self.challenge = None

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Serve one connection's scope (asgi.readthedocs.io/en/latest/specs/main.html)."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await asgi.lifespan(receive, send)
        else:
            await asgi.reject_websocket(receive, send)

    async def _http(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        served, start = self._served, perf_counter()
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
        protocol, methods = self._routes.find(path)
        try:
            if self.token is not None:
                self.token.check(path, scope["headers"])
            pin = pin_of(scope["headers"])
            if pin is not None:
                served, repinned = self.pinned(pin)
                send, pin = (asgi.with_header(send, REPINNED), None) if repinned else (send, pin)
            if scope["method"] not in methods:
                raise not_found(scope["method"], path, methods)  # noqa: TRY301 - it is answered as all errors are
            body = await asgi.read_body(receive, self.max_body_bytes)
            request = Request(scope, path, body and self._decoded(body, scope["headers"], served.batcher))
            if (arms := self.experiment.arms) is not None:
                served = arms.choose(served, protocol.episode(request), pinned=pin is not None)
            try:
                self._faults.check(served)
                response = await protocol.answer(request, served)
            except FAULTS as fault:
                served, response = await self.answer_again(fault, served, functools.partial(protocol.answer, request))
                send = send if pin is None else asgi.with_header(send, REPINNED)
            if isinstance(response, bytes):
                await asgi.respond(send, HTTPStatus.OK, served.headers, response)
            else:
                headers = [(b"content-type", response.content_type), *served.labels, *response.headers]
                if not isinstance(response.body, bytes):
                    await asgi.respond_in_parts(receive, send, headers, response.body)
                    return  # the duration of a stream is no latency
                await asgi.respond(send, response.status, headers, response.body)
        except asgi.ClientGoneError:
            return
        except Exception as exception:  # noqa: BLE001 - the client receives JSON, the log the traceback
            error = self.error_response(exception, request_id_of(scope["headers"]))
            await asgi.respond(send, error.status, [*served.headers, *error.headers], protocol.error_body(error))
            return
        self.metrics.request_ms.add((perf_counter() - start) * 1e3)

    def _decoded(self, body: bytes, headers: asgi.Headers, batcher: Batcher) -> bytes:
        """Return a body without compression. Raises Overloaded before it is decoded, and as `decoded`."""
        if self._ongoing_requests >= self._max_ongoing_requests:
            self._check_overload(batcher)
        return decoded(body, headers, self.max_body_bytes)

    def numbers(self) -> Iterator[Number]:
        """Yield the metrics of what is recorded and reported, and of an experiment; none without them."""
        if self._journal is not None and self.online is not None:
            yield from self._journal.numbers()
            yield from self.online.numbers()
        yield from self.experiment.numbers()

    def error_response(self, exception: Exception, request_id: str | None = None) -> ErrorResponse:
        """Count an error, log it if it is the server's fault, and return what the client receives."""
        if isinstance(exception, BodyTooLarge):
            size = ObservationSize.of(self.served.policy.observation_space)
            exception = BodyTooLarge(exception.limit, size.remedy(exception.limit))
        error = ErrorResponse.of(exception, request_id)
        self.counts.errors += 1
        self.metrics.requests_rejected[error.code] += 1
        if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            reason = exception.details if isinstance(exception, PolicyFault) else repr(exception)
            logger.error("%s: %s", error.code, reason, exc_info=exception, extra={"request_id": request_id})
        return error

    def _feedback(self, arguments: Arguments) -> Iterator[Protocol]:
        """Yield the protocol of feedback, if experience is recorded."""
        if self._journal is not None and self.online is not None:
            report = reports_to(self._journal, self.online)
            yield FeedbackProtocol(report, self.episodes.hashed, arguments.max_observations)

    async def _act(
        self, served: ServedPolicy, batcher: Batcher, observations: Batch, origin: Origin | None = None
    ) -> Batch:
        count = len(observations)
        if count > self._max_observations:
            raise ObservationsTooMany(count, self._max_observations)
        if self._ongoing_requests >= self._max_ongoing_requests:
            self._check_overload(batcher)
        self._ongoing_requests += 1
        try:
            actions = await batcher.act(observations) if count else observations
            if origin is not None and count and self._journal is not None:
                self._journal.decide(served.prepared(version_spec), origin, observations, actions)
            self.counts.answered += 1
            return actions
        finally:
            self._ongoing_requests -= 1

    def _check_overload(self, batcher: Batcher) -> None:
        """Raise Overloaded if the policy is slow or the replica autoscales: then requests must not pile up."""
        if self._autoscaled or not batcher.quick:
            raise Overloaded(self._max_ongoing_requests)

    def _prepared(self, served: ServedPolicy, *, quick: bool, inline: bool = True) -> ServedPolicy:
        """Give a version its own batcher, so that two policies never share a batch, and prepare the protocols."""
        batcher = Batcher(
            served.policy.act,
            self._batching,
            self.metrics,
            gathers=self._autoscaled,
            quick=quick,
            inline=inline,
            observation_s=served.policy.observation_s,
            has_fallback=lambda: self._faults.fallback_of(served) is not None,
            on_timeout=lambda fault: self._faults.note_timeout(fault, served),
        )
        served.batcher, served.act = batcher, functools.partial(self._act, served, batcher)
        for protocol in self._routes.protocols:
            protocol.prepare(served)
        if self._journal is not None:
            served.prepared(version_spec)
        warn_of(served, self.max_body_bytes, self._explore_share)
        return served
