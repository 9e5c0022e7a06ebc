/* The example, as the program around it sees it: it says what it does in lines of text. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#ifdef __cplusplus
extern "C" {
#endif

typedef void (*say_t)(const char *line);

void example_begin(say_t say); /* once */
void example_round(say_t say); /* as often as you like */

#ifdef __cplusplus
}
#endif
#endif
