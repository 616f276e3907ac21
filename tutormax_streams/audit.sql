-- Every current metrics row of some tutors against the raw tables, at the row's own calculation_date (contract §4).
-- Shares no formula with the application: windows, rates, engagement and tiers are worked out here from scratch.
--
-- Parameters: tutor_ids, windows, metric_ids: parallel arrays, one element for each row that ought to exist;
--             normalized: the engagement mode.
-- Answers one line per column that differs: tutor_id, window, calculation_date, column, stored, expected.

WITH wanted AS (
    SELECT wanted.*, CASE window_name WHEN 'SEVEN_DAY' THEN 7 WHEN 'THIRTY_DAY' THEN 30 WHEN 'NINETY_DAY' THEN 90 END AS days
    FROM unnest(%(tutor_ids)s::text[], %(windows)s::text[], %(metric_ids)s::text[])
        AS wanted (tutor_id, window_name, metric_id)
),

-- A window is [t - N * 24 h, t).
target AS MATERIALIZED (
    SELECT wanted.tutor_id, wanted.window_name, wanted.metric_id AS wanted_id, fence.as_of,
        row.*,
        row.calculation_date AS t,
        row.calculation_date - make_interval(hours => 24 * wanted.days) AS start,
        row.calculation_date - make_interval(hours => 24 * 90) AS start_90
    FROM wanted
    JOIN tutormax_streams.metric_fences AS fence ON fence.tutor_id = wanted.tutor_id
    LEFT JOIN (
        SELECT metric_id, tutor_id AS row_tutor_id, "window" AS row_window, calculation_date, sessions_completed,
            avg_rating, first_session_success_rate, reschedule_rate, no_show_count, engagement_score,
            learning_objectives_met_pct, response_time_avg_minutes, performance_tier
        FROM tutor_performance_metrics WHERE metric_id = ANY(%(metric_ids)s::text[])
    ) AS row ON row.metric_id = wanted.metric_id
),

-- S: the tutor's sessions in the window.
of_sessions AS (
    SELECT target.metric_id,
        count(*) AS scheduled,
        count(*) FILTER (WHERE NOT s.no_show AND s.actual_start IS NOT NULL) AS completed,
        count(*) FILTER (WHERE s.no_show) AS no_shows,
        count(*) FILTER (WHERE s.tutor_initiated_reschedule) AS rescheduled,
        count(*) FILTER (WHERE s.late_start_minutes <= 10) AS on_time,
        count(*) FILTER (WHERE s.learning_objectives_met) AS met,
        count(s.learning_objectives_met) AS met_or_not,
        avg(
            CASE
                WHEN %(normalized)s AND s.engagement_score <= 1 THEN s.engagement_score::numeric * 100
                ELSE s.engagement_score::numeric
            END
        ) AS engagement
    FROM target
    JOIN sessions AS s
        ON s.tutor_id = target.tutor_id AND s.scheduled_start >= target.start AND s.scheduled_start < target.t
    GROUP BY target.metric_id
),

-- F: ratings of the tutor, dated by their session, whosever that is.
rating AS MATERIALIZED (
    SELECT f.tutor_id, f.overall_rating, s.scheduled_start,
        s.tutor_id = f.tutor_id AND s.session_number = 1 AS of_first_session
    FROM student_feedback AS f JOIN sessions AS s ON s.session_id = f.session_id
    WHERE f.tutor_id = ANY(%(tutor_ids)s::text[])
),

of_ratings AS (
    SELECT target.metric_id,
        avg(rating.overall_rating) AS rating,
        avg(CASE WHEN rating.overall_rating >= 4 THEN 100 ELSE 0 END) FILTER (WHERE rating.of_first_session)
            AS first_session_success
    FROM target
    JOIN rating ON rating.tutor_id = target.tutor_id
        AND rating.scheduled_start >= target.start AND rating.scheduled_start < target.t
    GROUP BY target.metric_id
),

-- E: tutor events; logins of the longest window decide whether the login part counts at all.
of_events AS (
    SELECT target.metric_id,
        count(*) FILTER (WHERE e.event_type = 'login' AND e.event_timestamp >= target.start) AS logins,
        count(*) FILTER (WHERE e.event_type = 'login') AS logins_90,
        avg(response.minutes) FILTER (
            WHERE e.event_type = 'message_response' AND e.event_timestamp >= target.start
                AND abs(response.minutes) < 1.7e308
        ) AS response_time
    FROM target
    JOIN tutor_events AS e
        ON e.tutor_id = target.tutor_id AND e.event_timestamp >= target.start_90 AND e.event_timestamp < target.t
    CROSS JOIN LATERAL (
        SELECT CASE WHEN jsonb_typeof(e.metadata -> 'response_time_minutes') = 'number'
            THEN (e.metadata ->> 'response_time_minutes')::numeric END AS minutes
    ) AS response
    GROUP BY target.metric_id
),

-- Six figures give flags, as they are stored: rounded.
flags AS (
    SELECT metric_id,
        coalesce((avg_rating >= 4.5)::int, 0) + coalesce((first_session_success_rate >= 85)::int, 0)
        + coalesce((reschedule_rate <= 10)::int, 0) + (no_show_count = 0)::int
        + coalesce((engagement_score >= 80)::int, 0) + coalesce((learning_objectives_met_pct >= 90)::int, 0) AS green,
        coalesce((avg_rating < 3.5)::int, 0) + coalesce((first_session_success_rate < 70)::int, 0)
        + coalesce((reschedule_rate > 15)::int, 0) + (no_show_count > 3)::int
        + coalesce((engagement_score < 60)::int, 0) + coalesce((learning_objectives_met_pct < 80)::int, 0) AS red
    FROM target WHERE metric_id IS NOT NULL
),

expected AS (
    SELECT target.metric_id,
        coalesce(s.completed, 0) AS sessions_completed,
        r.rating AS avg_rating,
        r.first_session_success AS first_session_success_rate,
        100.0 * s.rescheduled / s.scheduled AS reschedule_rate,
        coalesce(s.no_shows, 0) AS no_show_count,
        CASE
            WHEN %(normalized)s AND coalesce(e.logins_90, 0) = 0
            THEN (0.4 * coalesce(s.engagement, 50) + 0.2 * 100 * s.on_time / s.scheduled) / 0.6
            ELSE 0.4 * least(100.0 * coalesce(e.logins, 0) / s.scheduled, 100)
                + 0.4 * coalesce(s.engagement, 50) + 0.2 * 100 * s.on_time / s.scheduled
        END AS engagement_score,
        100.0 * s.met / nullif(s.met_or_not, 0) AS learning_objectives_met_pct,
        e.response_time AS response_time_avg_minutes,
        CASE
            WHEN flags.green >= 5 AND flags.red = 0 THEN 'EXEMPLARY'
            WHEN flags.red >= 3 THEN 'AT_RISK'
            WHEN flags.red >= 1 THEN 'NEEDS_ATTENTION'
            WHEN flags.green >= 3 THEN 'STRONG'
            ELSE 'DEVELOPING'
        END AS performance_tier
    FROM target
    JOIN flags ON flags.metric_id = target.metric_id
    LEFT JOIN of_sessions AS s ON s.metric_id = target.metric_id
    LEFT JOIN of_ratings AS r ON r.metric_id = target.metric_id
    LEFT JOIN of_events AS e ON e.metric_id = target.metric_id
),

-- Half a unit of the second decimal is the rounding's, the rest what a float8 cannot tell apart.
figure AS (
    SELECT target.tutor_id, target.window_name, target.t, pair.name, pair.stored, pair.expected
    FROM target
    JOIN expected ON expected.metric_id = target.metric_id
    CROSS JOIN LATERAL (
        VALUES
        ('sessions_completed', target.sessions_completed::numeric, expected.sessions_completed::numeric, 0),
        ('no_show_count', target.no_show_count::numeric, expected.no_show_count::numeric, 0),
        ('avg_rating', target.avg_rating::numeric, expected.avg_rating, 0.005),
        ('first_session_success_rate', target.first_session_success_rate::numeric,
            expected.first_session_success_rate, 0.005),
        ('reschedule_rate', target.reschedule_rate::numeric, expected.reschedule_rate, 0.005),
        ('engagement_score', target.engagement_score::numeric, expected.engagement_score, 0.005),
        ('learning_objectives_met_pct', target.learning_objectives_met_pct::numeric,
            expected.learning_objectives_met_pct, 0.005),
        ('response_time_avg_minutes', target.response_time_avg_minutes::numeric,
            expected.response_time_avg_minutes, 0.005)
    ) AS pair (name, stored, expected, tolerance)
    WHERE (pair.stored IS NULL) <> (pair.expected IS NULL)
        OR abs(pair.stored - pair.expected) > pair.tolerance + 1e-9 + 1e-14 * abs(pair.expected)
)

SELECT tutor_id, window_name, t::text AS calculation_date, name, round(stored, 6)::text, round(expected, 6)::text
FROM figure
UNION ALL
SELECT target.tutor_id, target.window_name, target.t::text, 'performance_tier',
    target.performance_tier, expected.performance_tier
FROM target JOIN expected ON expected.metric_id = target.metric_id
WHERE target.performance_tier IS DISTINCT FROM expected.performance_tier
UNION ALL
-- A row and its fence are written together, so they agree on the instant, and no row is missing.
SELECT tutor_id, window_name, t::text, 'calculation_date', t::text, as_of::text
FROM target WHERE t <> as_of
UNION ALL
SELECT tutor_id, window_name, t::text, 'window', row_tutor_id || ' ' || row_window, tutor_id || ' ' || window_name
FROM target WHERE row_tutor_id <> tutor_id OR row_window <> window_name
UNION ALL
SELECT tutor_id, window_name, NULL, 'row', 'none', 'one' FROM target WHERE metric_id IS NULL
ORDER BY 1, 2, 4
