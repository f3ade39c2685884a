/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Curves over two logarithmic axes, as SVG: live forks to the right, microseconds upwards.
 *
 *   struct plot p = {.title = "...", .x = {1, 2000}, .y = {50, 20000}};
 *   struct plot_line line = {"cold, p50", "#b03030", false, {{1, 800}, ...}, 11};
 *
 *   plot_write(&p, &line, 1, "fork-latency.svg");
 */
#ifndef TENON_FORK_PLOT_H
#define TENON_FORK_PLOT_H

#include <stdbool.h>
#include <stdio.h>

#define PLOT_POINTS 32
#define PLOT_WIDTH  760
#define PLOT_HEIGHT 420
#define PLOT_LEFT   70 /* margins */
#define PLOT_RIGHT  150
#define PLOT_TOP    46
#define PLOT_BOTTOM 52

struct plot {
    const char *title, *note; /* note: below the title, small */
    const char *x_name, *y_name;
    double x[2], y[2]; /* where the axes begin and end */
};

struct plot_line {
    const char *name, *colour;
    bool dashed;
    double at[PLOT_POINTS][2];
    unsigned count;
};

/* log2 of v >= 1, to 20 bits. */
static inline double plot_log_(double v)
{
    double log = 0, bit = 0.5;

    for (; v >= 2; v /= 2)
        log += 1;
    for (int i = 0; i < 20; i++, bit /= 2) {
        v *= v;
        if (v >= 2) {
            v /= 2;
            log += bit;
        }
    }
    return log;
}

/* How far value lies between the ends of an axis, as logarithms. */
static inline double plot_part_(const double axis[2], double value)
{
    double v = value < axis[0] ? axis[0] : value > axis[1] ? axis[1] : value;

    return plot_log_(v / axis[0]) / plot_log_(axis[1] / axis[0]);
}

static inline double plot_x_(const struct plot *p, double v)
{
    return PLOT_LEFT + plot_part_(p->x, v) * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT);
}

static inline double plot_y_(const struct plot *p, double v)
{
    return PLOT_HEIGHT - PLOT_BOTTOM - plot_part_(p->y, v) * (PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM);
}

/* A tick at 1, 2 and 5 of each power of ten. */
static inline void plot_ticks_(const struct plot *p, FILE *f)
{
    static const double step[3] = {1, 2, 5};

    for (double ten = 1; ten <= 1e6; ten *= 10) {
        for (int i = 0; i < 3; i++) {
            double v = ten * step[i];

            if (v >= p->x[0] && v <= p->x[1])
                fprintf(f,
                        "<path class=\"grid\" d=\"M%.1f %d V%d\"/>"
                        "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n",
                        plot_x_(p, v), PLOT_TOP, PLOT_HEIGHT - PLOT_BOTTOM, plot_x_(p, v),
                        PLOT_HEIGHT - PLOT_BOTTOM + 16, v);
            if (v >= p->y[0] && v <= p->y[1])
                fprintf(f,
                        "<path class=\"grid\" d=\"M%d %.1f H%d\"/>"
                        "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>\n",
                        PLOT_LEFT, plot_y_(p, v), PLOT_WIDTH - PLOT_RIGHT, PLOT_LEFT - 6,
                        plot_y_(p, v) + 4, v);
        }
    }
}

static inline void plot_line_(const struct plot *p, const struct plot_line *line, unsigned row,
                              FILE *f)
{
    int x = PLOT_WIDTH - PLOT_RIGHT + 16, y = PLOT_TOP + 10 + 20 * (int)row;
    const char *dash = line->dashed ? " stroke-dasharray=\"5 4\"" : "";

    fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s d=\"", line->colour, dash);
    for (unsigned i = 0; i < line->count; i++)
        fprintf(f, "%c%.1f %.1f ", i ? 'L' : 'M', plot_x_(p, line->at[i][0]),
                plot_y_(p, line->at[i][1]));
    fprintf(f,
            "\"/><path stroke=\"%s\" stroke-width=\"2\"%s d=\"M%d %d h24\"/>"
            "<text x=\"%d\" y=\"%d\">%s</text>\n",
            line->colour, dash, x, y, x + 30, y + 4, line->name);
}

static inline bool plot_write(const struct plot *p, const struct plot_line *line, unsigned lines,
                              const char *path)
{
    FILE *f = fopen(path, "w");

    if (!f)
        return false;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" font-size=\"12\">\n"
            "<style>.grid{stroke:#ddd;fill:none}</style>\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n"
            "<text x=\"%d\" y=\"20\" font-size=\"15\">%s</text>\n"
            "<text x=\"%d\" y=\"36\" font-size=\"10\" fill=\"#555\">%s</text>\n",
            PLOT_WIDTH, PLOT_HEIGHT, PLOT_WIDTH, PLOT_HEIGHT, PLOT_LEFT, p->title, PLOT_LEFT,
            p->note);
    plot_ticks_(p, f);
    fprintf(f,
            "<path fill=\"none\" stroke=\"#000\" d=\"M%d %d V%d H%d\"/>\n"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n"
            "<text transform=\"translate(16 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
            PLOT_LEFT, PLOT_TOP, PLOT_HEIGHT - PLOT_BOTTOM, PLOT_WIDTH - PLOT_RIGHT,
            (PLOT_LEFT + PLOT_WIDTH - PLOT_RIGHT) / 2, PLOT_HEIGHT - 14, p->x_name,
            (PLOT_TOP + PLOT_HEIGHT - PLOT_BOTTOM) / 2, p->y_name);
    for (unsigned i = 0; i < lines; i++)
        plot_line_(p, &line[i], i, f);
    fputs("</svg>\n", f);
    return fclose(f) == 0;
}

#endif
